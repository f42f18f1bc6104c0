"""Bilinear resize of maps (`align_corners=False`), as the ops share it."""

import torch
from torch import Tensor
from torch.nn import functional


def resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """`maps (K, h, w)` resized to (K, H, W) by PyTorch, in their dtype; K may be 0."""
    if len(maps) == 0:
        return maps.new_zeros(0, *size)
    return functional.interpolate(maps[:, None], size, mode="bilinear", align_corners=False)[:, 0]


def resize_native(maps: Tensor, out: Tensor, *, add: bool) -> None:
    """Write `maps (K, h, w)`, resized, to `out (K, H, W)`, or add them; both contiguous, CPU."""
    from c2am import _core

    if out.numel() == 0:
        return
    _core.resize_maps(
        maps.data_ptr(),
        out.data_ptr(),
        *maps.shape,
        *out.shape[1:],
        add=add,
        dtype=str(maps.dtype).removeprefix("torch."),
        threads=torch.get_num_threads(),
    )
