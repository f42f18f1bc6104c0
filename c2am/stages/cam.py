"""Stage `cam`: a method's multi-scale class maps of every image, and the score of the seeds.

With `irn_labels.stream` it makes the labels for the IRN too, from the maps in memory.
"""

from pathlib import Path

import torch
from torch import Tensor

from c2am import distributed
from c2am.config import PipelineConfig
from c2am.data import Dataset
from c2am.evaluation import scores, sweep_curve
from c2am.progress import progress
from c2am.stages.class_maps import (
    ClassMaps,
    read_class_maps,
    split_by_image,
)
from c2am.stages.context import StageContext
from c2am.stages.irn_labels import labels_from
from c2am.stages.lists import pending_batches, union, with_mask
from c2am.stages.loaders import inference_batches
from c2am.stages.multi_scale import both_maps, trained_classifier
from c2am.stages.parallel import Workers
from c2am.stages.scoring import choose_threshold, sweep_list, thresholds
from c2am.transfer import ToHost
from c2am.workspace import tensor_names, write_mask, write_tensors


def run(context: StageContext) -> dict:
    """Write `<id>.safetensors` for the train, score and val lists, and score the seeds."""
    check(context.config, context.dataset)
    data, dataset = context.config.data, context.dataset
    splits = (data.train_list, data.score_list, data.val_list)
    write_class_maps(context, union(*(dataset.ids(split) for split in splits)))
    distributed.barrier()
    return seed_scores(context)


def check(config: PipelineConfig, dataset: Dataset) -> None:
    """Refuse what would fail after hours.

    Raises:
        ValueError: only the list on which the threshold is not chosen has masks, or an image at
            the largest scale has more than `cam.max_pixels`.
    """
    _check_masks(config, dataset)
    _check_sizes(config, dataset)


def _check_sizes(config: PipelineConfig, dataset: Dataset) -> None:
    data, limit = config.data, config.cam.max_pixels
    ids = union(*(dataset.ids(name) for name in (data.train_list, data.score_list, data.val_list)))
    scale = max(config.cam.scales)
    for image_id in progress(ids, "sizes of the images"):
        height, width = dataset.size(image_id)
        if height * width * scale**2 > limit:
            raise ValueError(
                f"{dataset.image_path(image_id)}: {width} x {height} pixels are more at the scale "
                f"{scale:g} than cam.max_pixels = {limit}. Shrink the image, or leave the large "
                "scales out of cam.scales, or raise the limit where there is memory for it"
            )


def _check_masks(config: PipelineConfig, dataset: Dataset) -> None:
    data, choice = config.data, config.evaluation.choose_on
    lists = {"score": data.score_list, "val": data.val_list}
    masks = {name: with_mask(dataset, dataset.ids(lists[name])) for name in lists}
    if any(masks.values()) and not masks[choice]:
        raise ValueError(
            f"evaluation.choose_on = {choice!r}, but no image of the list {lists[choice]!r} has a "
            "mask to choose the threshold with; choose on the other list"
        )


def write_class_maps(context: StageContext, ids: list[str]) -> None:
    """Class maps of this rank's images that have no file yet."""
    config, files = context.config, Files(context)
    assert context.method is not None
    batch_size = config.cam.batch_size
    todo = pending_batches(context, ids, files.there, batch_size)
    if not todo:
        return
    net = trained_classifier(context, context.classifier_weights(), context.method)
    batches = inference_batches(
        context,
        todo,
        net.backbone.normalization,
        context.name,
        scales=config.cam.scales,
        flip=config.cam.flip,
        batch_size=batch_size,
    )
    # Threads wait for the maps, label and write: neither the network nor the host waits for both.
    with Workers() as workers, torch.inference_mode(not context.method.needs_gradients):
        for batch in batches:
            maps = both_maps(context, context.method, net, batch)
            halves = ToHost(*(kind.half() for kind in maps))
            # Not the batch: its views would stay on the GPU for as long as the job waits.
            workers.submit(save_batch, files, batch.ids, batch.present, halves)


class Files:
    """What the stage leaves of which image.

    With `irn_labels.stream` an image of the training list gets its labels `<id>.png` here, from
    the maps in memory. Its high resolution maps, many times larger than all the rest, are then
    written only if they are scored. The strided ones are what `pseudo_masks` reads.
    """

    def __init__(self, context: StageContext) -> None:
        self._context = context
        data, dataset = context.config.data, context.dataset
        lists = dataset.ids(data.score_list), dataset.ids(data.val_list)
        self._scored = frozenset(with_mask(dataset, union(*lists)))
        stream = context.config.irn_labels.stream
        self._labelled = frozenset(dataset.ids(data.train_list) if stream else ())

    def there(self, image_id: str) -> bool:
        """Whether an earlier run has left all that is needed of an image."""
        path = self._path(image_id)
        if not path.exists():
            return False
        return image_id not in self._scored or "high_res" in tensor_names(path)

    def save(self, image_id: str, classes: Tensor, strided: Tensor, high_res: Tensor) -> None:
        """`classes (K,)` int64, `strided` and `high_res` float16 in 0..1; the labels come first."""
        tensors = {"classes": classes, "strided": strided}
        if image_id in self._labelled:
            labels = labels_from(self._context, image_id, ClassMaps(classes, high_res))
            write_mask(self._path(image_id).with_suffix(".png"), labels)
        if image_id in self._scored or image_id not in self._labelled:
            tensors["high_res"] = high_res
        write_tensors(self._path(image_id), tensors)

    def _path(self, image_id: str) -> Path:
        return self._context.folder / f"{image_id}.safetensors"


def save_batch(files: Files, ids: list[str], present: Tensor, maps: ToHost) -> None:
    """The files of a batch's images, `present (B, Z)`; what is there already is left as it is."""
    kinds = (split_by_image(kind, present) for kind in maps.wait())
    for image_id, row, strided, high_res in zip(ids, present, *kinds, strict=True):
        if not files.there(image_id):
            files.save(image_id, row.nonzero()[:, 0], strided, high_res)


def seed_scores(context: StageContext) -> dict:
    """Scores of the high resolution maps on the score and val lists at one threshold.

    The threshold is the best of the sweep on `evaluation.choose_on`. Empty without masks.
    """
    data, choice = context.config.data, context.config.evaluation.choose_on

    def load(image_id: str) -> ClassMaps:
        return read_class_maps(context.folder / f"{image_id}.safetensors", "high_res")

    sweeps = {
        name: sweep_list(context, split, load, f"cam: score {split}")
        for name, split in (("score", data.score_list), ("val", data.val_list))
    }
    chosen = sweeps[choice]
    if chosen is None:
        return {}
    classes, points = context.dataset.classes, thresholds(context)
    curve = sweep_curve(chosen, points, classes)
    threshold = choose_threshold(context, curve)
    at = points.index(threshold)
    metrics: dict = {
        name: scores(sweep[at], classes).as_dict()
        for name, sweep in sweeps.items()
        if sweep is not None
    }
    return metrics | {"threshold": threshold, "chosen_on": choice, "curve": curve}
