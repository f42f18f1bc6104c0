"""Running sum of the normalised maps of each class: the Global CAM (paper, Eq. 2).

    total_z = sum of the maps of class z that are not all zero,    count_z = their number

so that the Global CAM is total / count. With a `total` of float64 each value is first rounded to
a multiple of 2^-30. Sums of such values below 2^23 are exact in float64, hence the same whatever
the order of the images, the batches and the ranks. A `total` of float32 is deterministic too, but
rounded in the order of the maps.
"""

import math

import torch
from torch import Tensor

from c2am.ops import checks, dispatch
from c2am.ops.bilinear import resize, resize_native
from c2am.ops.normalize_cam import normalize_cam

OP = "accumulate_global_cam"
ROUNDING = {torch.float64: 1.5 * 2.0**22, torch.float32: 0.0}
"""Adding and taking this away rounds a float64 in 0..1 to a multiple of 2^-30, ties to even."""
EPS = 1e-5
"""Added to the maximum that a map is divided by (paper, Eq. 1)."""


def accumulate_global_cam(
    total: Tensor,
    count: Tensor,
    cam: Tensor,
    class_index: Tensor,
    *,
    normalize: bool = False,
    backend: str = "auto",
) -> None:
    """Add each map to the total of its class, and 1 to its count, in place.

    Maps that are all zero are skipped. Not differentiable. On CUDA the host waits for nothing.

    Args:
        total: (Z, S, S) float64 (same result in any order) or float32; changed in place.
        count: (Z,) int64; changed in place.
        cam: (K, S, S) float, normalised maps in 0..1. With `normalize` (K, h, w), maps of any size
            and any values from 0 on.
        class_index: (K,) integer, 0..Z-1, the class of each map.
        normalize: Whether the maps are resized to S x S first (bilinear, `align_corners=False`)
            and each divided by its maximum + 1e-5, in at least float32.
        backend: See `docs/ops.md`.

    Raises:
        TypeError, ValueError: a wrong argument, by name; `class_index` out of range, or `cam` not
            finite or out of range (CPU only; on CUDA a map of a class out of range is skipped).
    """
    checks.tensor(OP, "total", total, ("Z", "S", "S"), checks.FLOATS)
    classes, *sides = total.shape
    checks.tensor(OP, "count", count, (classes,), (torch.int64,), like=total)
    shape: tuple[str | int, ...] = ("K", "h", "w") if normalize else ("K", *sides)
    checks.tensor(OP, "cam", cam, shape, checks.FEATURES, like=total)
    checks.tensor(OP, "class_index", class_index, (len(cam),), checks.INTEGERS, like=total)
    if normalize:
        checks.above(OP, 0, S=sides[0], h=cam.shape[1], w=cam.shape[2])
    checks.no_gradient(OP, total=total, cam=cam)
    torch.ops.c2am.accumulate_global_cam(total, count, cam, class_index, normalize, backend)


def _reference(
    total: Tensor, count: Tensor, cam: Tensor, class_index: Tensor, normalize: bool
) -> None:
    _check_values(cam, normalize)
    maps = cam.to(checks.accumulation_dtype(cam.dtype))
    if normalize:
        maps = resize(maps, (total.shape[1], total.shape[2]))
        maps = maps / (maps.amax((1, 2), keepdim=True) + EPS)
    shift = ROUNDING[total.dtype]
    index = class_index.long()
    known = (index >= 0) & (index < len(total))
    seen = maps.flatten(1).any(1) & known
    index = torch.where(known, index, 0)
    maps = torch.where(seen[:, None, None], (maps.to(total.dtype) + shift) - shift, 0)
    # One map at a time, hence in their order; by index on the device, which the host need not read.
    for k in range(len(maps)):
        total.index_add_(0, index[k : k + 1], maps[k : k + 1])
    count.index_add_(0, index, seen.long())


def _check_values(cam: Tensor, normalize: bool) -> None:
    checks.within(OP, "cam", cam, 0, math.inf if normalize else 1)


def _triton(
    total: Tensor, count: Tensor, cam: Tensor, class_index: Tensor, normalize: bool
) -> None:
    from c2am.kernels import accumulate_global_cam as kernels

    _check_values(cam, normalize)
    sums, numbers = total.contiguous(), count.contiguous()
    index = class_index.long().contiguous()
    shift = ROUNDING[total.dtype]
    dispatch.launches[OP, "triton"] += 1
    kernels.accumulate_global_cam(
        sums, numbers, cam.contiguous(), index, shift=shift, normalize=normalize, eps=EPS
    )
    _write_back(total, sums, count, numbers)


def _native_cpu(
    total: Tensor, count: Tensor, cam: Tensor, class_index: Tensor, normalize: bool
) -> None:
    from c2am import _core

    maps = cam.to(checks.accumulation_dtype(cam.dtype)).contiguous()
    if normalize:
        _check_values(cam, normalize)
        square = maps.new_empty(len(maps), *total.shape[1:])
        resize_native(maps, square, add=False)
        maps = normalize_cam(square, eps=EPS, backend="native")
    index, sums, numbers = class_index.long().contiguous(), total.contiguous(), count.contiguous()
    dispatch.launches[OP, "native"] += 1
    valid = _core.accumulate_global_cam(
        maps.data_ptr(),
        index.data_ptr(),
        sums.data_ptr(),
        numbers.data_ptr(),
        len(maps),
        maps.numel() // len(maps),
        dtype=str(maps.dtype).removeprefix("torch."),
        total_dtype=str(sums.dtype).removeprefix("torch."),
        threads=torch.get_num_threads(),
    )
    if not valid:  # then nothing was added, and this says why
        _check_values(cam, normalize)
    _write_back(total, sums, count, numbers)


def _write_back(total: Tensor, sums: Tensor, count: Tensor, numbers: Tensor) -> None:
    """Copy the sums to arguments that are not contiguous."""
    if sums is not total:
        total.copy_(sums)
    if numbers is not count:
        count.copy_(numbers)


def _kernel(
    total: Tensor,
    count: Tensor,
    cam: Tensor,
    class_index: Tensor,
    normalize: bool,
    backend: str,
) -> None:
    compute = dispatch.resolve(OP, backend, cam.device)[1]
    if cam.numel() == 0:
        return
    if class_index.device.type == "cpu":
        low, high = (int(bound) for bound in class_index.aminmax())
        if low < 0 or high >= len(total):
            got = f"has values from {low} to {high}"
            raise ValueError(f"{OP}: class_index {got}, expected 0 to {len(total) - 1}")
    compute(total, count, cam, class_index, normalize)


def _fake(
    total: Tensor,
    count: Tensor,
    cam: Tensor,
    class_index: Tensor,
    normalize: bool,
    backend: str,
) -> None:
    return None


dispatch.register(
    OP,
    cpu={"native": _native_cpu, "reference": _reference, "triton": _triton},
    cuda={"triton": _triton, "reference": _reference},
)
dispatch.define(
    OP,
    "(Tensor(a!) total, Tensor(b!) count, Tensor cam, Tensor class_index, bool normalize,"
    " str backend) -> ()",
    kernel=_kernel,
    fake=_fake,
)
