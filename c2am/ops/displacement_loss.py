"""Losses of the displacement field (Ahn et al. 2019).

The field d points from each pixel to the centroid of its object, d_i + x_i = d_j + x_j for two
pixels of one object, so with the true offset o_ij = x_j - x_i

    fg_positive  mean of |d_i - d_j - o_ij| over the pairs of one foreground class
    bg_positive  mean of |d_i - d_j|        over the pairs of background

over pairs and the two components y and x, a mean being sum / (2 count + 1e-5). Memory and
gradient are as in `affinity_loss`.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from c2am.ops import checks, dispatch, paths
from c2am.palette import VOID

OP = "displacement_loss"
EPS = 1e-5


class DisplacementLosses(NamedTuple):
    """The two losses, scalars, in pixels; 0 where there is no such pair."""

    fg_positive: Tensor
    bg_positive: Tensor

    @property
    def total(self) -> Tensor:
        """(fg_positive + bg_positive) / 2, as IRN is trained."""
        return (self.fg_positive + self.bg_positive) / 2


def displacement_loss(
    displacement: Tensor, label: Tensor, *, radius: float, backend: str = "auto"
) -> DisplacementLosses:
    """Losses of a displacement field over the pairs of `path_affinity`.

    Differentiable in `displacement`, once.

    Args:
        displacement: (B, 2, H, W) float, pixels: channel 0 is y, channel 1 is x.
        label: (B, H, W) integer: 0 background, 1..254 foreground, 255 void.
        radius: Pairs closer than this, in pixels; above 1.
        backend: See `docs/ops.md`.

    Returns:
        `DisplacementLosses`, scalars of float32 (float64 for float64).

    Raises:
        TypeError, ValueError: a wrong argument, by name; `displacement` not finite or `label`
            out of range (CPU only).
    """
    checks.tensor(OP, "displacement", displacement, ("B", 2, "H", "W"), checks.FEATURES)
    shape = (displacement.shape[0], *displacement.shape[2:])
    checks.tensor(OP, "label", label, shape, checks.INTEGERS, like=displacement)
    checks.above(OP, 1, radius=radius)
    gradient = displacement.requires_grad and torch.is_grad_enabled()
    losses, _ = torch.ops.c2am.displacement_loss(
        displacement, label, float(radius), gradient, backend
    )
    return DisplacementLosses(*losses.unbind())


def _reference(
    field: Tensor, label: Tensor, radius: float, gradient: bool
) -> tuple[Tensor, Tensor]:
    """`field (B,2,H,W)`, `label (B,H,W)` -> losses (2,), their gradients (2,B,2,H,W) or empty."""
    sums = torch.zeros(2, dtype=torch.float64, device=field.device)
    counts = torch.zeros_like(sums)
    gradients = field.new_zeros(2, *field.shape) if gradient else field.new_zeros(0)
    for path in paths.path_offsets(radius):
        fg_positive, bg_positive, _ = paths.pair_kinds(label, path, radius)
        target = paths.shifted(field, path.dy, path.dx, radius)
        difference = paths.shifted(field, 0, 0, radius) - target
        offset = field.new_tensor([path.dy, path.dx]).view(2, 1, 1)
        for k, (kind, error) in enumerate(
            ((fg_positive, difference - offset), (bg_positive, difference))
        ):
            error = error.mul_(kind.unsqueeze(1))
            sums[k] += error.abs().sum()
            counts[k] += 2 * kind.sum()
            if gradient:
                slope = error.sign_()
                paths.shifted(gradients[k], 0, 0, radius).add_(slope)
                paths.shifted(gradients[k], path.dy, path.dx, radius).sub_(slope)
    counts += EPS
    if gradient:
        gradients /= counts.to(field.dtype).view(2, 1, 1, 1, 1)
    return (sums / counts).to(field.dtype), gradients


def _native(field: Tensor, label: Tensor, radius: float, gradient: bool) -> tuple[Tensor, Tensor]:
    """As `_reference`."""
    from c2am import _core

    field, label = field.contiguous(), label.contiguous()
    losses = field.new_empty(2)
    gradients = field.new_empty((2, *field.shape) if gradient else 0)
    dispatch.launches[OP, "native"] += 1
    _core.displacement_loss(
        field.data_ptr(),
        label.data_ptr(),
        losses.data_ptr(),
        gradients.data_ptr(),
        *label.shape,
        radius=radius,
        dtype=str(field.dtype).removeprefix("torch."),
        threads=torch.get_num_threads(),
    )
    return losses, gradients


def _triton(field: Tensor, label: Tensor, radius: float, gradient: bool) -> tuple[Tensor, Tensor]:
    """As `_reference`."""
    from c2am.kernels import displacement_loss as kernels

    if 0 in (len(field), *paths.interior_size(field.shape[2], field.shape[3], radius)):
        return field.new_zeros(2), field.new_zeros((2, *field.shape) if gradient else 0)
    dispatch.launches[OP, "triton"] += 1
    return kernels.displacement_loss(
        field.contiguous(),
        label.contiguous(),
        paths.path_chains(radius, field.device).visits,
        paths.interior_margin(radius),
        gradient,
    )


def _kernel(
    displacement: Tensor, label: Tensor, radius: float, gradient: bool, backend: str
) -> tuple[Tensor, Tensor]:
    checks.finite(OP, displacement=displacement)
    field = displacement.to(checks.accumulation_dtype(displacement.dtype))
    label = paths.void_to_minus_one(OP, label, VOID - 1, field.dtype)
    return dispatch.resolve(OP, backend, field.device)[1](field, label, radius, gradient)


def _fake(
    displacement: Tensor, label: Tensor, radius: float, gradient: bool, backend: str
) -> tuple[Tensor, Tensor]:
    dtype = checks.accumulation_dtype(displacement.dtype)
    shape = (2, *displacement.shape) if gradient else (0,)
    return displacement.new_empty(2, dtype=dtype), displacement.new_empty(shape, dtype=dtype)


def _backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    (gradients,) = ctx.saved_tensors
    total = (grad.view(2, 1, 1, 1, 1) * gradients).sum(0)
    return total.to(ctx.dtype), None, None, None, None


dispatch.register(
    OP,
    cpu={"native": _native, "reference": _reference, "triton": _triton},
    cuda={"triton": _triton, "reference": _reference},
)
dispatch.define(
    OP,
    "(Tensor displacement, Tensor label, float radius, bool gradient, str backend)"
    " -> (Tensor, Tensor)",
    kernel=_kernel,
    fake=_fake,
    setup_context=dispatch.save_gradient,
    backward=_backward,
)
