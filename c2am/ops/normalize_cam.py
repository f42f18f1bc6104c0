"""Normalisation of class activation maps: each map over its maximum (paper, Eq. 1)."""

import torch
from torch import Tensor

from c2am.ops import checks, dispatch

OP = "normalize_cam"


def normalize_cam(cam: Tensor, *, eps: float = 1e-5, backend: str = "auto") -> Tensor:
    """Each map divided by (its maximum + eps); a map of zeros stays zero.

    Not differentiable.

    Args:
        cam: (K, H, W) float, at least 0.
        eps: Added to the maximum; above 0.
        backend: See `docs/ops.md`.

    Returns:
        (K, H, W) of the dtype of `cam`, in [0, 1); computed in at least float32.

    Raises:
        TypeError, ValueError: a wrong argument, by name; `cam` negative or not finite (CPU only).
    """
    checks.tensor(OP, "cam", cam, ("K", "H", "W"), checks.FEATURES)
    checks.above(OP, 0, eps=eps)
    checks.no_gradient(OP, cam=cam)
    return torch.ops.c2am.normalize_cam(cam, eps, backend)


def _reference(cam: Tensor, eps: float) -> Tensor:
    checks.within(OP, "cam", cam, 0, float("inf"))
    wide = cam.to(checks.accumulation_dtype(cam.dtype))
    return (wide / (wide.amax((1, 2), keepdim=True) + eps)).to(cam.dtype)


def _triton(cam: Tensor, eps: float) -> Tensor:
    from c2am.kernels import normalize_cam as kernels

    checks.within(OP, "cam", cam, 0, float("inf"))
    dispatch.launches[OP, "triton"] += 1
    return kernels.normalize_cam(cam.contiguous(), eps)


def _native_cpu(cam: Tensor, eps: float) -> Tensor:
    from c2am import _core

    maps = cam.contiguous()
    out = torch.empty_like(maps)
    dispatch.launches[OP, "native"] += 1
    valid = _core.normalize_cam(
        maps.data_ptr(),
        out.data_ptr(),
        len(maps),
        maps.numel() // len(maps),
        eps=eps,
        dtype=str(maps.dtype).removeprefix("torch."),
        threads=torch.get_num_threads(),
    )
    if not valid:  # then this says why
        checks.within(OP, "cam", cam, 0, float("inf"))
    return out


def _kernel(cam: Tensor, eps: float, backend: str) -> Tensor:
    compute = dispatch.resolve(OP, backend, cam.device)[1]
    return compute(cam, eps) if cam.numel() else _fake(cam, eps, backend)


def _fake(cam: Tensor, eps: float, backend: str) -> Tensor:
    return torch.empty_like(cam, memory_format=torch.contiguous_format)


dispatch.register(
    OP,
    cpu={"native": _native_cpu, "reference": _reference, "triton": _triton},
    cuda={"triton": _triton, "reference": _reference},
)
dispatch.define(OP, "(Tensor cam, float eps, str backend) -> Tensor", kernel=_kernel, fake=_fake)
