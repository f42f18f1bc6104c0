"""The operations of C2AM, each with a plain PyTorch reference and faster backends.

See `docs/ops.md`. Every op takes `backend="auto" | "reference" | "native" | "triton"`.
"""

from c2am.ops.accumulate_global_cam import accumulate_global_cam
from c2am.ops.affinity_loss import AffinityLosses, affinity_loss
from c2am.ops.dense_crf import DenseCrfPlan, dense_crf
from c2am.ops.dispatch import BackendError, available, backend_of, launches
from c2am.ops.displacement_loss import DisplacementLosses, displacement_loss
from c2am.ops.extract_cam import extract_cam
from c2am.ops.front_door_logits import front_door_logits
from c2am.ops.front_door_loss import front_door_loss
from c2am.ops.label_maps import label_maps, random_walk_labels
from c2am.ops.multi_scale_cam import MultiScaleCam, multi_scale_cam
from c2am.ops.normalize_cam import normalize_cam
from c2am.ops.path_affinity import path_affinity
from c2am.ops.paths import path_offsets
from c2am.ops.random_walk import random_walk, random_walk_batch
from c2am.ops.unary import unary_from_labels, unary_from_softmax

__all__ = [
    "AffinityLosses",
    "BackendError",
    "DenseCrfPlan",
    "DisplacementLosses",
    "MultiScaleCam",
    "accumulate_global_cam",
    "affinity_loss",
    "available",
    "backend_of",
    "dense_crf",
    "displacement_loss",
    "extract_cam",
    "front_door_logits",
    "front_door_loss",
    "label_maps",
    "launches",
    "multi_scale_cam",
    "normalize_cam",
    "path_affinity",
    "path_offsets",
    "random_walk",
    "random_walk_batch",
    "random_walk_labels",
    "unary_from_labels",
    "unary_from_softmax",
]
