"""Cross-entropies of the affinities of pixel pairs (Ahn et al. 2019).

With m the largest boundary on the path of a pair (so that its affinity is 1 - m) and e = 1e-5,

    fg_positive  mean of -log(1 - m + e) over the pairs of one foreground class
    bg_positive  mean of -log(1 - m + e) over the pairs of background
    negative     mean of -log(m + e)     over the pairs of two classes

where a mean is sum / (count + e). The affinities are never stored, so that the memory is that of a
few maps. The gradient of each mean with respect to the map is summed on the same visit (its factor
1 / (count + e) is known at the end), so backward is a weighted sum of three maps.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from c2am.ops import checks, dispatch, paths

OP = "affinity_loss"
EPS = 1e-5


class AffinityLosses(NamedTuple):
    """The three losses, scalars; 0 where there is no such pair."""

    fg_positive: Tensor
    bg_positive: Tensor
    negative: Tensor

    @property
    def total(self) -> Tensor:
        """((fg_positive + bg_positive) / 2 + negative) / 2, as IRN is trained."""
        return self.fg_positive / 4 + self.bg_positive / 4 + self.negative / 2


def affinity_loss(
    edge: Tensor, label: Tensor, *, radius: float, num_classes: int, backend: str = "auto"
) -> AffinityLosses:
    """`path_affinity` and its three cross-entropies in one pass, without storing the affinities.

    Differentiable in `edge`, once; the gradient of a maximum goes to one pixel, as in
    `path_affinity`.

    Args:
        edge: (B, 1, H, W) float, boundary probability in 0..1.
        label: (B, H, W) integer: 0 background, 1..num_classes foreground, 255 void.
        radius: Pairs closer than this, in pixels; above 1.
        num_classes: Z, the number of foreground classes.
        backend: See `docs/ops.md`.

    Returns:
        `AffinityLosses`, scalars of float32 (float64 for float64).

    Raises:
        TypeError, ValueError: a wrong argument, by name; `edge` or `label` out of range (CPU only).
    """
    checks.tensor(OP, "edge", edge, ("B", 1, "H", "W"), checks.FEATURES)
    shape = (edge.shape[0], *edge.shape[2:])
    checks.tensor(OP, "label", label, shape, checks.INTEGERS, like=edge)
    checks.above(OP, 1, radius=radius)
    checks.above(OP, 0, num_classes=num_classes)
    gradient = edge.requires_grad and torch.is_grad_enabled()
    losses, _ = torch.ops.c2am.affinity_loss(
        edge, label, float(radius), num_classes, gradient, backend
    )
    return AffinityLosses(*losses.unbind())


def _reference(edge: Tensor, label: Tensor, radius: float, gradient: bool) -> tuple[Tensor, Tensor]:
    """`edge (B,H,W)`, `label (B,H,W)` -> losses (3,), their gradients (3,B,H,W) or empty."""
    sums = torch.zeros(3, dtype=torch.float64, device=edge.device)
    counts = torch.zeros_like(sums)
    gradients = edge.new_zeros(3, *edge.shape) if gradient else edge.new_zeros(0)
    source = paths.source_index(edge, radius)
    for path in paths.path_offsets(radius):
        kinds = paths.pair_kinds(label, path, radius)
        if gradient:
            largest, where = paths.path_argmaximum(edge, path, radius)
        else:
            largest = paths.path_maximum(edge, path, radius)
        positive = kinds.fg_positive + kinds.bg_positive
        # The masks are 0 or 1, so this is exact: 1 - m, m, or nothing for a void pair.
        likelihood = (1 - largest).mul_(positive).addcmul_(largest, kinds.negative).add_(EPS)
        log_likelihood = likelihood.log()
        sums -= torch.stack([(log_likelihood * kind).sum() for kind in kinds])
        counts += torch.stack([kind.sum() for kind in kinds])
        if gradient:
            slope = positive.sub_(kinds.negative).div_(likelihood)
            kind_index = (kinds.bg_positive + 2 * kinds.negative).long()
            index = kind_index.mul_(edge.numel()).add_(source).add_(where)
            gradients.view(-1).index_add_(0, index.flatten(), slope.flatten())
    counts += EPS
    if gradient:
        gradients /= counts.to(edge.dtype).view(3, 1, 1, 1)
    return (sums / counts).to(edge.dtype), gradients


def _native(edge: Tensor, label: Tensor, radius: float, gradient: bool) -> tuple[Tensor, Tensor]:
    """As `_reference`."""
    from c2am import _core

    edge, label = edge.contiguous(), label.contiguous()
    losses = edge.new_empty(3)
    gradients = edge.new_empty((3, *edge.shape) if gradient else 0)
    dispatch.launches[OP, "native"] += 1
    _core.affinity_loss(
        edge.data_ptr(),
        label.data_ptr(),
        losses.data_ptr(),
        gradients.data_ptr(),
        *edge.shape,
        radius=radius,
        dtype=str(edge.dtype).removeprefix("torch."),
        threads=torch.get_num_threads(),
    )
    return losses, gradients


def _triton(edge: Tensor, label: Tensor, radius: float, gradient: bool) -> tuple[Tensor, Tensor]:
    """As `_reference`."""
    from c2am.kernels import affinity_loss as kernels

    if 0 in (len(edge), *paths.interior_size(edge.shape[1], edge.shape[2], radius)):
        return edge.new_zeros(3), edge.new_zeros((3, *edge.shape) if gradient else 0)
    dispatch.launches[OP, "triton"] += 1
    return kernels.affinity_loss(
        edge.contiguous(),
        label.contiguous(),
        *paths.path_chains(radius, edge.device),
        paths.interior_margin(radius),
        gradient,
    )


def _kernel(
    edge: Tensor, label: Tensor, radius: float, num_classes: int, gradient: bool, backend: str
) -> tuple[Tensor, Tensor]:
    checks.within(OP, "edge", edge, 0, 1)
    edge = edge[:, 0].to(checks.accumulation_dtype(edge.dtype))
    label = paths.void_to_minus_one(OP, label, num_classes, edge.dtype)
    return dispatch.resolve(OP, backend, edge.device)[1](edge, label, radius, gradient)


def _fake(
    edge: Tensor, label: Tensor, radius: float, num_classes: int, gradient: bool, backend: str
) -> tuple[Tensor, Tensor]:
    dtype = checks.accumulation_dtype(edge.dtype)
    shape = (3, edge.shape[0], *edge.shape[2:]) if gradient else (0,)
    return edge.new_empty(3, dtype=dtype), edge.new_empty(shape, dtype=dtype)


def _backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    (gradients,) = ctx.saved_tensors
    total = (grad.view(3, 1, 1, 1) * gradients).sum(0)
    return total.unsqueeze(1).to(ctx.dtype), None, None, None, None, None


dispatch.register(
    OP,
    cpu={"native": _native, "reference": _reference, "triton": _triton},
    cuda={"triton": _triton, "reference": _reference},
)
dispatch.define(
    OP,
    "(Tensor edge, Tensor label, float radius, int num_classes, bool gradient, str backend)"
    " -> (Tensor, Tensor)",
    kernel=_kernel,
    fake=_fake,
    setup_context=dispatch.save_gradient,
    backward=_backward,
)
