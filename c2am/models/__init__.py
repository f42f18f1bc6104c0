"""The networks: backbones, classifier, IRN and DeepLabV2; no training code."""

from c2am.models.backbone import Backbone, build_backbone
from c2am.models.classifier import (
    Classifier,
    ClassifierOutput,
    build_classifier,
    logit_statistics,
)
from c2am.models.convert import convert_checkpoint
from c2am.models.deeplab import DeepLab, build_segmenter
from c2am.models.folding import fold_batch_norms
from c2am.models.irn import Irn, boundaries, build_irn
from c2am.models.weights import WeightsError, load_weights, read_state_dict

__all__ = [
    "Backbone",
    "Classifier",
    "ClassifierOutput",
    "DeepLab",
    "Irn",
    "WeightsError",
    "boundaries",
    "build_backbone",
    "build_classifier",
    "build_irn",
    "build_segmenter",
    "convert_checkpoint",
    "fold_batch_norms",
    "load_weights",
    "logit_statistics",
    "read_state_dict",
]
