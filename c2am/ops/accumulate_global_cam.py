"""Running sum of the normalised maps of each class: the Global CAM (paper, Eq. 2).

    total_z = sum of the maps of class z that are not all zero,    count_z = their number

so that the Global CAM is total / count. With a `total` of float64 each value is first rounded to
a multiple of 2^-30. Sums of such values below 2^23 are exact in float64, hence the same whatever
the order of the images, the batches and the ranks. A `total` of float32 is deterministic too, but
rounded in the order of the maps.
"""

import torch
from torch import Tensor

from c2am.ops import checks, dispatch

OP = "accumulate_global_cam"
ROUNDING = {torch.float64: 1.5 * 2.0**22, torch.float32: 0.0}
"""Adding and taking this away rounds a float64 in 0..1 to a multiple of 2^-30, ties to even."""


def accumulate_global_cam(
    total: Tensor, count: Tensor, cam: Tensor, class_index: Tensor, *, backend: str = "auto"
) -> None:
    """Add each map to the total of its class, and 1 to its count, in place.

    Maps that are all zero are skipped. Not differentiable. Reads `class_index` on the host, to
    check it.

    Args:
        total: (Z, S, S) float64 (same result in any order) or float32; changed in place.
        count: (Z,) int64; changed in place.
        cam: (K, S, S) float, normalised maps in 0..1.
        class_index: (K,) integer, 0..Z-1, the class of each map.
        backend: See `docs/ops.md`.

    Raises:
        TypeError, ValueError: a wrong argument, by name; `class_index` out of range; `cam`
            not in 0..1 (CPU only).
    """
    checks.tensor(OP, "total", total, ("Z", "S", "S"), checks.FLOATS)
    classes, *sides = total.shape
    checks.tensor(OP, "count", count, (classes,), (torch.int64,), like=total)
    checks.tensor(OP, "cam", cam, ("K", *sides), checks.FEATURES, like=total)
    checks.tensor(OP, "class_index", class_index, (len(cam),), checks.INTEGERS, like=total)
    checks.no_gradient(OP, total=total, cam=cam)
    torch.ops.c2am.accumulate_global_cam(total, count, cam, class_index, backend)


def _reference(total: Tensor, count: Tensor, cam: Tensor, class_index: Tensor) -> None:
    checks.within(OP, "cam", cam, 0, 1)
    seen = cam.flatten(1).any(1)
    shift = ROUNDING[total.dtype]
    maps = (cam.to(total.dtype) + shift) - shift
    for k, z in enumerate(class_index.tolist()):
        # Times `seen`, not `if`: reading it would wait for the device at every map.
        total[z] += maps[k] * seen[k]
        count[z] += seen[k]


def _triton(total: Tensor, count: Tensor, cam: Tensor, class_index: Tensor) -> None:
    from c2am.kernels import accumulate_global_cam as kernels

    checks.within(OP, "cam", cam, 0, 1)
    seen = cam.flatten(1).any(1)
    index = torch.where(seen, class_index.long(), -1)
    sums, numbers = total.contiguous(), count.contiguous()
    shift = ROUNDING[total.dtype]
    dispatch.launches[OP, "triton"] += 1
    kernels.accumulate_global_cam(sums, numbers, cam.contiguous(), index, shift)
    _write_back(total, sums, count, numbers)


def _native_cpu(total: Tensor, count: Tensor, cam: Tensor, class_index: Tensor) -> None:
    from c2am import _core

    maps = cam.to(checks.accumulation_dtype(cam.dtype)).contiguous()
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
        checks.within(OP, "cam", cam, 0, 1)
    _write_back(total, sums, count, numbers)


def _write_back(total: Tensor, sums: Tensor, count: Tensor, numbers: Tensor) -> None:
    """Copy the sums to arguments that are not contiguous."""
    if sums is not total:
        total.copy_(sums)
    if numbers is not count:
        count.copy_(numbers)


def _kernel(total: Tensor, count: Tensor, cam: Tensor, class_index: Tensor, backend: str) -> None:
    compute = dispatch.resolve(OP, backend, cam.device)[1]
    if cam.numel() == 0:
        return
    low, high = (int(bound) for bound in class_index.aminmax())
    if low < 0 or high >= len(total):
        got = f"has values from {low} to {high}"
        raise ValueError(f"{OP}: class_index {got}, expected 0 to {len(total) - 1}")
    compute(total, count, cam, class_index)


def _fake(total: Tensor, count: Tensor, cam: Tensor, class_index: Tensor, backend: str) -> None:
    return None


dispatch.register(
    OP,
    cpu={"native": _native_cpu, "reference": _reference, "triton": _triton},
    cuda={"triton": _triton, "reference": _reference},
)
dispatch.define(
    OP,
    "(Tensor(a!) total, Tensor(b!) count, Tensor cam, Tensor class_index, str backend) -> ()",
    kernel=_kernel,
    fake=_fake,
)
