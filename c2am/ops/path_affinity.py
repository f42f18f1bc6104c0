"""Affinity of pixel pairs from a boundary map (Ahn et al. 2019).

    a_ij = 1 - max over the pixels k on the path from i to j of edge_k

`c2am.ops.paths` says which pairs there are and which pixels are on a path.
"""

from typing import Any

import torch
from torch import Tensor

from c2am.ops import checks, dispatch, paths

OP = "path_affinity"


def path_affinity(edge: Tensor, *, radius: float, backend: str = "auto") -> Tensor:
    """1 - the largest boundary on the path of every pair of pixels closer than `radius`.

    Differentiable: the gradient of an affinity goes to the pixel where the maximum is; among
    equal pixels to the one nearest to the source (the first of `Path.pixels`).

    Args:
        edge: (B, 1, H, W) float, boundary probability in 0..1.
        radius: Pairs closer than this, in pixels; above 1.
        backend: See `docs/ops.md`.

    Returns:
        (B, P, N) of the dtype of `edge`: P displacements in the order of
        `path_offsets(radius)`, N = (H-r)(W-2r) source pixels in row-major order, with
        r = ceil(radius) - 1. N is 0 where the map is too small.

    Raises:
        TypeError, ValueError: a wrong argument, by name; `edge` not finite (CPU only).
    """
    checks.tensor(OP, "edge", edge, ("B", 1, "H", "W"), checks.FEATURES)
    checks.above(OP, 1, radius=radius)
    return torch.ops.c2am.path_affinity(edge, float(radius), backend)


def _reference(edge: Tensor, radius: float) -> Tensor:
    maxima = [
        paths.path_maximum(edge[:, 0], path, radius).flatten(1)
        for path in paths.path_offsets(radius)
    ]
    return 1 - torch.stack(maxima, 1)


def _reference_backward(grad: Tensor, edge: Tensor, radius: float) -> Tensor:
    wide = edge[:, 0].to(checks.accumulation_dtype(edge.dtype))
    source = paths.source_index(wide, radius)
    total = torch.zeros_like(wide, memory_format=torch.contiguous_format).view(-1)
    for p, path in enumerate(paths.path_offsets(radius)):
        _, where = paths.path_argmaximum(wide, path, radius)
        share = grad[:, p].reshape(-1).to(total.dtype)
        total.index_add_(0, (source + where).flatten(), share, alpha=-1)
    return total.view(edge.shape).to(edge.dtype)


def _native(edge: Tensor, radius: float) -> Tensor:
    from c2am import _core

    wide = edge[:, 0].to(checks.accumulation_dtype(edge.dtype)).contiguous()
    affinity = _fake(wide.unsqueeze(1), radius, "native")
    dispatch.launches[OP, "native"] += 1
    _core.path_affinity(wide.data_ptr(), affinity.data_ptr(), *wide.shape, **_options(wide, radius))
    return affinity.to(edge.dtype)


def _native_backward(grad: Tensor, edge: Tensor, radius: float) -> Tensor:
    from c2am import _core

    wide = edge[:, 0].to(checks.accumulation_dtype(edge.dtype)).contiguous()
    grad = grad.to(wide.dtype).contiguous()
    result = torch.empty_like(wide)
    dispatch.launches[OP, "native"] += 1
    _core.path_affinity_backward(
        grad.data_ptr(),
        wide.data_ptr(),
        result.data_ptr(),
        *wide.shape,
        **_options(wide, radius),
    )
    return result.view(edge.shape).to(edge.dtype)


def _triton(edge: Tensor, radius: float) -> Tensor:
    from c2am.kernels import path_affinity as kernels

    wide = edge[:, 0].to(checks.accumulation_dtype(edge.dtype)).contiguous()
    affinity = _fake(edge, radius, "triton")
    if affinity.numel() > 0:
        dispatch.launches[OP, "triton"] += 1
        chains = paths.path_chains(radius, edge.device)
        kernels.path_affinity(wide, affinity, *chains, paths.interior_margin(radius))
    return affinity


def _triton_backward(grad: Tensor, edge: Tensor, radius: float) -> Tensor:
    from c2am.kernels import path_affinity as kernels

    if grad.numel() == 0:
        return torch.zeros_like(edge, memory_format=torch.contiguous_format)
    wide = edge[:, 0].to(checks.accumulation_dtype(edge.dtype)).contiguous()
    dispatch.launches[OP, "triton"] += 1
    result = kernels.path_affinity_backward(
        grad.contiguous(),
        wide,
        *paths.path_chains(radius, edge.device),
        paths.interior_margin(radius),
        terms=sum(len(path.pixels) for path in paths.path_offsets(radius)),
    )
    return result.view(edge.shape).to(edge.dtype)


def _options(wide: Tensor, radius: float) -> dict[str, Any]:
    dtype = str(wide.dtype).removeprefix("torch.")
    return {"radius": radius, "dtype": dtype, "threads": torch.get_num_threads()}


def _kernel(edge: Tensor, radius: float, backend: str) -> Tensor:
    checks.finite(OP, edge=edge)
    return dispatch.resolve(OP, backend, edge.device)[1](edge, radius)


def _backward_kernel(grad: Tensor, edge: Tensor, radius: float, backend: str) -> Tensor:
    return _BACKWARD[dispatch.resolve(OP, backend, edge.device)[0]](grad, edge, radius)


def _fake(edge: Tensor, radius: float, backend: str) -> Tensor:
    rows, columns = paths.interior_size(edge.shape[2], edge.shape[3], radius)
    return edge.new_empty(edge.shape[0], len(paths.path_offsets(radius)), rows * columns)


def _fake_backward(grad: Tensor, edge: Tensor, radius: float, backend: str) -> Tensor:
    return torch.empty_like(edge, memory_format=torch.contiguous_format)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    edge, ctx.radius, ctx.backend = inputs
    ctx.save_for_backward(edge)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
    (edge,) = ctx.saved_tensors
    grad_edge = torch.ops.c2am.path_affinity_backward(grad, edge, ctx.radius, ctx.backend)
    return grad_edge, None, None


_BACKWARD = {
    "reference": _reference_backward,
    "native": _native_backward,
    "triton": _triton_backward,
}
dispatch.register(
    OP,
    cpu={"native": _native, "reference": _reference, "triton": _triton},
    cuda={"triton": _triton, "reference": _reference},
)
dispatch.define(
    OP,
    "(Tensor edge, float radius, str backend) -> Tensor",
    kernel=_kernel,
    fake=_fake,
    setup_context=_save,
    backward=_backward,
)
dispatch.define(
    "path_affinity_backward",
    "(Tensor grad, Tensor edge, float radius, str backend) -> Tensor",
    kernel=_backward_kernel,
    fake=_fake_backward,
)
