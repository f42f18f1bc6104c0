"""The class maps of several scales as one, at two resolutions, normalised (paper, Eq. 1).

With M_s the maps of a class at scale s, at the resolution of their features,

    strided   sum_s resize(M_s, to ceil(H / stride) x ceil(W / stride))
    high_res  sum_s resize(M_s, to H x W rounded up to whole multiples), cropped to H x W

both over (their maximum + eps). Resizing is bilinear (`align_corners=False`).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from c2am.ops import checks, dispatch
from c2am.ops.bilinear import resize

OP = "multi_scale_cam"


class MultiScaleCam(NamedTuple):
    """Maps of the same K image-class pairs at two resolutions, in [0, 1)."""

    strided: Tensor
    """(K, ceil(H / stride), ceil(W / stride))"""
    high_res: Tensor
    """(K, H, W)"""


def multi_scale_cam(
    maps: Sequence[Tensor],
    size: tuple[int, int],
    *,
    stride: int = 4,
    multiple: int = 16,
    eps: float = 1e-5,
    backend: str = "auto",
) -> MultiScaleCam:
    """Merge the maps that `extract_cam` gives at the resolution of the features, scale by scale.

    Not differentiable. Each map is divided by (its maximum + eps); a map of zeros stays zero.

    Args:
        maps: One (K, h_s, w_s) float per scale, at least 0, all of one dtype.
        size: (H, W) of the image.
        stride: Pixels of the image per pixel of the strided maps.
        multiple: The high resolution maps are computed at the size rounded up to whole multiples
            of this and cropped, so that strided pixels keep their places (Ahn et al. 2019).
        eps: Added to the maximum; above 0.
        backend: See `docs/ops.md`.

    Returns:
        `MultiScaleCam`, float32 (float64 for float64 maps).

    Raises:
        TypeError, ValueError: a wrong argument, by name; `maps` negative or not finite (CPU only).
    """
    if len(maps) == 0:
        raise ValueError(f"{OP}: maps is empty, expected those of one scale at least")
    count: int | str = "K"
    for scale, each in enumerate(maps):
        name, dtypes = f"maps[{scale}]", checks.FEATURES if scale == 0 else (maps[0].dtype,)
        checks.tensor(OP, name, each, (count, "h", "w"), dtypes, like=maps[0])
        checks.above(OP, 0, h=each.shape[1], w=each.shape[2])
        checks.no_gradient(OP, **{name: each})
        count = len(each)
    height, width = size
    checks.above(OP, 0, height=height, width=width, stride=stride, multiple=multiple, eps=eps)
    merged = torch.ops.c2am.multi_scale_cam(
        list(maps), height, width, stride, multiple, eps, backend
    )
    return MultiScaleCam(*merged)


Size = tuple[int, int]
Merge = Callable[[Size, Size], Tensor]


def _both(merge: Merge, size: Size, stride: int, multiple: int) -> tuple[Tensor, Tensor]:
    """`merge` gives maps of one size, of which it keeps another."""
    strided = _rounded_up(size, stride, 1)
    return merge(strided, strided), merge(_rounded_up(size, multiple, multiple), size)


def _rounded_up(size: Size, by: int, times: int) -> Size:
    return -(-size[0] // by) * times, -(-size[1] // by) * times


def _reference(
    maps: list[Tensor], size: Size, stride: int, multiple: int, eps: float
) -> tuple[Tensor, Tensor]:
    def merge(resized: Size, kept: Size) -> Tensor:
        first, *others = (resize(each, resized)[:, : kept[0], : kept[1]] for each in maps)
        total = sum(others, start=first)
        return total / (total.amax((1, 2), keepdim=True) + eps)

    return _both(merge, size, stride, multiple)


def _native_cpu(
    maps: list[Tensor], size: Size, stride: int, multiple: int, eps: float
) -> tuple[Tensor, Tensor]:
    from c2am import _core

    contiguous = [each.contiguous() for each in maps]
    scales = [(each.data_ptr(), each.shape[1], each.shape[2]) for each in contiguous]

    def merge(resized: Size, kept: Size) -> Tensor:
        out = maps[0].new_empty(len(maps[0]), *kept)
        dispatch.launches[OP, "native"] += 1
        _core.multi_scale_cam(
            scales,
            out.data_ptr(),
            len(out),
            *resized,
            *kept,
            eps=eps,
            dtype=str(out.dtype).removeprefix("torch."),
            threads=torch.get_num_threads(),
        )
        return out

    return _both(merge, size, stride, multiple)


def _triton(
    maps: list[Tensor], size: Size, stride: int, multiple: int, eps: float
) -> tuple[Tensor, Tensor]:
    from c2am.kernels import multi_scale_cam as kernels

    empty = partial(maps[0].new_empty, len(maps[0]))
    strided, high_res = _both(lambda _, kept: empty(*kept), size, stride, multiple)
    dispatch.launches[OP, "triton"] += 1
    kernels.multi_scale_cam(maps, strided, high_res, _rounded_up(size, multiple, multiple), eps)
    return strided, high_res


def _kernel(
    maps: list[Tensor],
    height: int,
    width: int,
    stride: int,
    multiple: int,
    eps: float,
    backend: str,
) -> tuple[Tensor, Tensor]:
    for scale, each in enumerate(maps):
        checks.within(OP, f"maps[{scale}]", each, 0, float("inf"))
    compute = dispatch.resolve(OP, backend, maps[0].device)[1]
    if len(maps[0]) == 0:
        return _fake(maps, height, width, stride, multiple, eps, backend)
    wide = [each.to(checks.accumulation_dtype(each.dtype)) for each in maps]
    return compute(wide, (height, width), stride, multiple, eps)


def _fake(
    maps: list[Tensor],
    height: int,
    width: int,
    stride: int,
    multiple: int,
    eps: float,
    backend: str,
) -> tuple[Tensor, Tensor]:
    dtype = checks.accumulation_dtype(maps[0].dtype)
    empty = partial(maps[0].new_empty, len(maps[0]), dtype=dtype)
    strided = _rounded_up((height, width), stride, 1)
    return empty(*strided), empty(height, width)


dispatch.register(
    OP,
    cpu={"native": _native_cpu, "reference": _reference, "triton": _triton},
    cuda={"triton": _triton, "reference": _reference},
)
dispatch.define(
    OP,
    "(Tensor[] maps, SymInt height, SymInt width, int stride, int multiple, float eps,"
    " str backend) -> (Tensor, Tensor)",
    kernel=_kernel,
    fake=_fake,
)
