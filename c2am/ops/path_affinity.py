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


def _kernel(edge: Tensor, radius: float, backend: str) -> Tensor:
    checks.finite(OP, edge=edge)
    return dispatch.resolve(OP, backend, edge.device)[1](edge, radius)


def _fake(edge: Tensor, radius: float, backend: str) -> Tensor:
    rows, columns = paths.interior_size(edge.shape[2], edge.shape[3], radius)
    return edge.new_empty(edge.shape[0], len(paths.path_offsets(radius)), rows * columns)


def _fake_backward(grad: Tensor, edge: Tensor, radius: float) -> Tensor:
    return torch.empty_like(edge, memory_format=torch.contiguous_format)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    edge, ctx.radius, _ = inputs
    ctx.save_for_backward(edge)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
    (edge,) = ctx.saved_tensors
    return torch.ops.c2am.path_affinity_backward(grad, edge, ctx.radius), None, None


dispatch.register(OP, cpu={"reference": _reference}, cuda={"reference": _reference})
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
    "(Tensor grad, Tensor edge, float radius) -> Tensor",
    kernel=_reference_backward,
    fake=_fake_backward,
)
