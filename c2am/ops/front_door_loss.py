"""The training loss of the front-door adjustment: `front_door_logits` and its cross-entropy.

With the scores s of Eq. 3 and the labels y,

    loss = mean over images and classes of softplus(s) - y s

The operator returns the loss and its gradient (sigmoid(s) - y) ds/dlogit / (B Z) together, so
backward is one product.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from c2am.ops import checks, dispatch
from c2am.ops.front_door_logits import POOLINGS, PROBABILITIES
from c2am.ops.front_door_logits import native_cpu as native_scores
from c2am.ops.front_door_logits import reference as reference_scores

OP = "front_door_loss"


def front_door_loss(
    logits: Tensor,
    labels: Tensor,
    global_cam: Tensor,
    *,
    pooling: str = "mean",
    gamma: float = 1.0,
    probability: str = "logit",
    backend: str = "auto",
) -> Tensor:
    """Binary cross-entropy of `front_door_logits` with the labels, mean over images and classes.

    Differentiable in `logits`, once. Labels and Global CAM are constants: those that require a
    gradient are refused.

    Args:
        logits: (B, Z) float; not empty, since the mean of nothing is none.
        labels: (B, Z) float in 0..1, 1 where the class is present.
        global_cam: (Z, S, S) float, the mean normalised CAM of each class.
        pooling: mean, max or lse.
        gamma: Factor on the Global CAM; above 0.
        probability: P(z|x) is the logit itself (as released) or its sigmoid (as written).
        backend: See `docs/ops.md`.

    Returns:
        0-d, float32 (float64 for float64 logits).

    Raises:
        TypeError, ValueError: a wrong argument, by name; one not finite, or labels out of range
            (CPU only).
    """
    checks.tensor(OP, "logits", logits, ("B", "Z"), checks.FEATURES)
    checks.tensor(OP, "labels", labels, tuple(logits.shape), checks.FEATURES, like=logits)
    shape = (logits.shape[1], "S", "S")
    checks.tensor(OP, "global_cam", global_cam, shape, checks.FEATURES, like=logits)
    checks.above(OP, 0, gamma=gamma, B=logits.shape[0], Z=logits.shape[1], S=global_cam.shape[1])
    checks.choice(OP, "pooling", pooling, POOLINGS)
    checks.choice(OP, "probability", probability, PROBABILITIES)
    for name, value in (("labels", labels), ("global_cam", global_cam)):
        if value.requires_grad:
            raise ValueError(f"{OP}: {name} requires a gradient; it is a constant, detach it")
    return torch.ops.c2am.front_door_loss(
        logits, labels, global_cam, pooling, float(gamma), probability, backend
    )[0]


def _reference(
    logits: Tensor,
    labels: Tensor,
    global_cam: Tensor,
    pooling: str,
    gamma: float,
    probability: str,
) -> tuple[Tensor, Tensor]:
    scores = reference_scores(logits, global_cam, pooling, gamma, probability)
    return _cross_entropy(*scores, labels)


def _native_cpu(
    logits: Tensor,
    labels: Tensor,
    global_cam: Tensor,
    pooling: str,
    gamma: float,
    probability: str,
) -> tuple[Tensor, Tensor]:
    dispatch.launches[OP, "native"] += 1
    scores = native_scores(logits, global_cam, pooling, gamma, probability)
    return _cross_entropy(*scores, labels)


def _cross_entropy(score: Tensor, slope: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The loss, and its gradient by the logits from the slopes ds/dlogit."""
    labels = labels.to(score.dtype)
    loss = functional.binary_cross_entropy_with_logits(score, labels)
    return loss, (score.sigmoid() - labels) * slope / score.numel()


def _triton(
    logits: Tensor,
    labels: Tensor,
    global_cam: Tensor,
    pooling: str,
    gamma: float,
    probability: str,
) -> tuple[Tensor, Tensor]:
    from c2am.kernels import front_door_loss as kernels

    dispatch.launches[OP, "triton"] += 1
    return kernels.front_door_loss(
        logits.contiguous(),
        labels.contiguous(),
        global_cam.flatten(1).contiguous(),
        pooling,
        gamma,
        probability == "sigmoid",
    )


def _kernel(
    logits: Tensor,
    labels: Tensor,
    global_cam: Tensor,
    pooling: str,
    gamma: float,
    probability: str,
    backend: str,
) -> tuple[Tensor, Tensor]:
    checks.finite(OP, logits=logits, global_cam=global_cam)
    checks.within(OP, "labels", labels, 0, 1)
    compute = dispatch.resolve(OP, backend, logits.device)[1]
    return compute(logits, labels, global_cam, pooling, gamma, probability)


def _fake(
    logits: Tensor,
    labels: Tensor,
    global_cam: Tensor,
    pooling: str,
    gamma: float,
    probability: str,
    backend: str,
) -> tuple[Tensor, Tensor]:
    dtype = checks.accumulation_dtype(logits.dtype)
    return logits.new_empty((), dtype=dtype), logits.new_empty(logits.shape, dtype=dtype)


def _backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    (gradient,) = ctx.saved_tensors
    return (grad * gradient).to(ctx.dtype), None, None, None, None, None, None


dispatch.register(
    OP,
    cpu={"native": _native_cpu, "reference": _reference, "triton": _triton},
    cuda={"triton": _triton, "reference": _reference},
)
dispatch.define(
    OP,
    "(Tensor logits, Tensor labels, Tensor global_cam, str pooling, float gamma, str probability,"
    " str backend) -> (Tensor, Tensor)",
    kernel=_kernel,
    fake=_fake,
    setup_context=dispatch.save_gradient,
    backward=_backward,
)
