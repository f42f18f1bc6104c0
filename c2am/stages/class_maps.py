"""The trained classifier of a method, and its multi-scale class maps."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor

from c2am import precision
from c2am.data.loader import InferenceBatch
from c2am.methods import Method
from c2am.models import Classifier, build_classifier, load_weights
from c2am.stages.context import StageContext
from c2am.workspace import read_tensors

STRIDE = 4
"""Pixels per cell of a strided map."""
_HIGH_RES_MULTIPLE = 16


@dataclass(frozen=True)
class ClassMaps:
    """Class maps of an image: `classes (K,)` int64 in 0..Z-1 and `maps (K, h, w)`."""

    classes: Tensor
    maps: Tensor


def read_class_maps(path: Path, kind: str) -> ClassMaps:
    """`strided` or `high_res` maps of a file that stage `cam` wrote."""
    tensors = read_tensors(path)
    return ClassMaps(tensors["classes"], tensors[kind])


def trained_classifier(
    context: StageContext, weights: Path, method: Method | None = None
) -> Classifier:
    """The classifier with the weights of a file, and what `method` attaches to it; frozen, eval."""
    net = build_classifier(context.config.classifier, len(context.dataset.classes))
    if method is not None and method.trains:
        method.attach(net)
    load_weights(net, weights)
    return net.to(context.device).eval().requires_grad_(False)


def strided_size(size: tuple[int, int]) -> tuple[int, int]:
    """ceil(H / 4), ceil(W / 4)."""
    return math.ceil(size[0] / STRIDE), math.ceil(size[1] / STRIDE)


def strided_maps(
    context: StageContext, method: Method, net: Classifier, batch: InferenceBatch
) -> Tensor:
    """`(K, ceil(H/4), ceil(W/4))` float32: a batch's class maps, summed over its scales.

    The K image-class pairs follow the row-major order of `batch.present`.
    """
    maps = (_one_scale(context, method, net, batch, views) for views in batch.views)
    return sum_resized(maps, strided_size(batch.size))


def both_maps(
    context: StageContext, method: Method, net: Classifier, batch: InferenceBatch
) -> tuple[Tensor, Tensor]:
    """`strided_maps`, and `(K, H, W)` float32 high resolution maps.

    For the latter each scale's maps are resized to the image size rounded up to a multiple of 16,
    and their sum is cropped to the image.
    """
    maps = [_one_scale(context, method, net, batch, views) for views in batch.views]
    height, width = (_HIGH_RES_MULTIPLE * math.ceil(s / _HIGH_RES_MULTIPLE) for s in batch.size)
    high_res = sum_resized(maps, (height, width))[:, : batch.size[0], : batch.size[1]]
    return sum_resized(maps, strided_size(batch.size)), high_res


def sum_resized(maps: Iterable[Tensor], size: tuple[int, int]) -> Tensor:
    """Sum of the maps (K, h_i, w_i) of several scales, each resized bilinearly to `size`."""
    first, *others = (resize(each, size) for each in maps)
    return sum(others, start=first)


def resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """`maps (K, h, w)` resized bilinearly (`align_corners=False`); K may be 0."""
    if len(maps) == 0:
        return maps.new_zeros(0, *size)
    return F.interpolate(maps[None], size, mode="bilinear", align_corners=False)[0]


def split_by_image(maps: Tensor, present: Tensor) -> tuple[Tensor, ...]:
    """The rows of (K, h, w) maps as one tensor per image of `present (B, Z)`."""
    return maps.split(present.sum(1).tolist())


def _one_scale(
    context: StageContext, method: Method, net: Classifier, batch: InferenceBatch, views: Tensor
) -> Tensor:
    with precision.autocast(context.device, context.config.classifier.precision):
        return method.class_maps(net, views, batch.present, batch.ids).float()
