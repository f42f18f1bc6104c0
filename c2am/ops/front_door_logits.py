"""The front-door adjustment of the logits (paper, Eq. 3).

    s_z = Pool over the pixels of (gamma * P(z|x) * GlobalCAM_z)

Since P(z|x) is one number p per image and class, no (B, Z, S, S) map is needed:

    mean  p gamma mean(G_z), a fixed scale of p per class (Eq. 6)
    max   p gamma max(G_z) where p >= 0, p gamma min(G_z) where p < 0
    lse   log(mean(exp(p gamma G_z))): the logarithm of the mean, not of the sum, of the
          exponentials, so that a logit of 0 gives 0 and a small one gives the mean pooling,
          whatever the size of the map

The operator returns the scores and their slopes ds/dlogit together, so backward is one product.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from c2am.ops import checks, dispatch

OP = "front_door_logits"
POOLINGS = ("mean", "max", "lse")
PROBABILITIES = ("logit", "sigmoid")


def front_door_logits(
    logits: Tensor,
    global_cam: Tensor,
    *,
    pooling: str = "mean",
    gamma: float = 1.0,
    probability: str = "logit",
    backend: str = "auto",
) -> Tensor:
    """Logits after the front-door adjustment by the Global CAM.

    Differentiable in `logits`, once. The Global CAM is a constant of the method: one that
    requires a gradient is refused.

    Args:
        logits: (B, Z) float.
        global_cam: (Z, S, S) float, the mean normalised CAM of each class.
        pooling: mean, max or lse.
        gamma: Factor on the Global CAM; above 0.
        probability: P(z|x) is the logit itself (as released) or its sigmoid (as written).
        backend: See `docs/ops.md`.

    Returns:
        (B, Z) float32 (float64 for float64 logits).

    Raises:
        TypeError, ValueError: a wrong argument, by name; one not finite (CPU only).
    """
    checks.tensor(OP, "logits", logits, ("B", "Z"), checks.FEATURES)
    shape = (logits.shape[1], "S", "S")
    checks.tensor(OP, "global_cam", global_cam, shape, checks.FEATURES, like=logits)
    checks.above(OP, 0, gamma=gamma, S=global_cam.shape[1])
    checks.choice(OP, "pooling", pooling, POOLINGS)
    checks.choice(OP, "probability", probability, PROBABILITIES)
    if global_cam.requires_grad:
        raise ValueError(f"{OP}: global_cam requires a gradient; it is a constant, detach it")
    return torch.ops.c2am.front_door_logits(
        logits, global_cam, pooling, float(gamma), probability, backend
    )[0]


def reference(
    logits: Tensor, global_cam: Tensor, pooling: str, gamma: float, probability: str
) -> tuple[Tensor, Tensor]:
    return _of_probability(_pool, logits, global_cam, pooling, gamma, probability)


def _of_probability(
    pool: Callable[[Tensor, Tensor, str], tuple[Tensor, Tensor]],
    logits: Tensor,
    global_cam: Tensor,
    pooling: str,
    gamma: float,
    probability: str,
) -> tuple[Tensor, Tensor]:
    """Scores and ds/dlogit by a `pool(p, gamma G, pooling)` that gives scores and ds/dp."""
    checks.finite(OP, logits=logits, global_cam=global_cam)
    p = logits.to(checks.accumulation_dtype(logits.dtype))
    p = p.sigmoid() if probability == "sigmoid" else p
    score, slope = pool(p, gamma * global_cam.flatten(1).to(p.dtype), pooling)
    return score, slope * p * (1 - p) if probability == "sigmoid" else slope


def _pool(p: Tensor, global_cam: Tensor, pooling: str) -> tuple[Tensor, Tensor]:
    """`p (B,Z)` and `global_cam (Z,S*S)`, with gamma -> pooled scores and ds/dp, (B,Z) each."""
    if pooling == "mean":
        slope = global_cam.mean(1).expand_as(p)
    elif pooling == "max":
        low, high = global_cam.aminmax(dim=1)
        slope = torch.where(p >= 0, high, low)
    else:
        return _log_mean_exp(p, global_cam)
    return p * slope, slope.contiguous()


def _log_mean_exp(p: Tensor, global_cam: Tensor) -> tuple[Tensor, Tensor]:
    """log(mean(exp(x))) of x = p g and its slope, the mean of g weighted by softmax(x).

    A class at a time, so that the largest temporary is (B, S*S). With the maximum m of x, the
    first is m + log1p(mean(expm1(x - m))), which keeps its digits where x is small.
    """
    score, slope = torch.empty_like(p), torch.empty_like(p)
    for z, values in enumerate(global_cam):
        exponent = p[:, z, None] * values
        largest = exponent.amax(1)
        excess = exponent.sub_(largest[:, None]).expm1_()
        score[:, z] = largest + excess.mean(1).log1p()
        weights = excess.add_(1)
        slope[:, z] = weights @ values / weights.sum(1)
    return score, slope


def _triton(
    logits: Tensor, global_cam: Tensor, pooling: str, gamma: float, probability: str
) -> tuple[Tensor, Tensor]:
    return _of_probability(_pool_triton, logits, global_cam, pooling, gamma, probability)


def _pool_triton(p: Tensor, global_cam: Tensor, pooling: str) -> tuple[Tensor, Tensor]:
    from c2am.kernels import front_door_logits as kernels

    dispatch.launches[OP, "triton"] += 1
    return kernels.front_door_logits(p.contiguous(), global_cam.contiguous(), pooling)


def native_cpu(
    logits: Tensor, global_cam: Tensor, pooling: str, gamma: float, probability: str
) -> tuple[Tensor, Tensor]:
    from c2am import _core

    dtype = checks.accumulation_dtype(logits.dtype)
    values, maps = logits.to(dtype).contiguous(), global_cam.to(dtype).contiguous()
    batch, classes = values.shape
    score, slope = torch.empty_like(values), torch.empty_like(values)
    dispatch.launches[OP, "native"] += 1
    finite = _core.front_door_logits(
        values.data_ptr(),
        maps.data_ptr(),
        score.data_ptr(),
        slope.data_ptr(),
        batch,
        classes,
        maps.numel() // len(maps),
        pooling=pooling,
        gamma=gamma,
        sigmoid=probability == "sigmoid",
        dtype=str(dtype).removeprefix("torch."),
        threads=torch.get_num_threads(),
    )
    if not finite:  # then this says which
        checks.finite(OP, logits=logits, global_cam=global_cam)
    return score, slope


def _kernel(
    logits: Tensor, global_cam: Tensor, pooling: str, gamma: float, probability: str, backend: str
) -> tuple[Tensor, Tensor]:
    compute = dispatch.resolve(OP, backend, logits.device)[1]
    if logits.numel() == 0:
        checks.finite(OP, global_cam=global_cam)
        return _fake(logits, global_cam, pooling, gamma, probability, backend)
    return compute(logits, global_cam, pooling, gamma, probability)


def _fake(
    logits: Tensor, global_cam: Tensor, pooling: str, gamma: float, probability: str, backend: str
) -> tuple[Tensor, Tensor]:
    score = logits.new_empty(logits.shape, dtype=checks.accumulation_dtype(logits.dtype))
    return score, torch.empty_like(score)


def _backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    (slope,) = ctx.saved_tensors
    return (grad * slope).to(ctx.dtype), None, None, None, None, None


dispatch.register(
    OP,
    cpu={"native": native_cpu, "reference": reference, "triton": _triton},
    cuda={"triton": _triton, "reference": reference},
)
dispatch.define(
    OP,
    "(Tensor logits, Tensor global_cam, str pooling, float gamma, str probability, str backend)"
    " -> (Tensor, Tensor)",
    kernel=_kernel,
    fake=_fake,
    setup_context=dispatch.save_gradient,
    backward=_backward,
)
