"""Class maps of images: their files, their two resolutions."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor

from c2am.workspace import WorkspaceError, read_tensors

STRIDE = 4
"""Pixels per cell of a strided map."""


@dataclass(frozen=True)
class ClassMaps:
    """Class maps of an image: `classes (K,)` int64 in 0..Z-1 and `maps (K, h, w)`."""

    classes: Tensor
    maps: Tensor


def read_class_maps(path: Path, kind: str) -> ClassMaps:
    """The maps `kind` of a file: `strided` or `high_res` of stage `cam`, `maps` of `pseudo_masks`.

    Raises:
        WorkspaceError: the file is missing, unreadable, or holds no such maps.
    """
    tensors = read_tensors(path)
    if not {"classes", kind} <= tensors.keys():
        found = ", ".join(sorted(tensors))
        raise WorkspaceError(f"{path}: expected the tensors classes and {kind}, found {found}")
    return ClassMaps(tensors["classes"], tensors[kind])


def strided_size(size: tuple[int, int]) -> tuple[int, int]:
    """ceil(H / 4), ceil(W / 4)."""
    return math.ceil(size[0] / STRIDE), math.ceil(size[1] / STRIDE)


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
