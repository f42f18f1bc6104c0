"""Steady speed of the stages, by `python -m benchmarks stages`.

A stage runs as the pipeline runs it, in processes of their own: whole, its loading alone, its
network alone on a batch that stays on the device, and the loops that other code would run instead.
"""

TRAINED = ("classifier", "irn", "segmenter")
PER_IMAGE = ("cam", "irn_labels", "pseudo_masks")
STAGES = (*TRAINED, *PER_IMAGE)
PROVIDERS = ("whole", "loading", "network", "eager", "torchvision")
