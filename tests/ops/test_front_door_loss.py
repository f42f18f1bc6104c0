"""front_door_loss against the (B, Z, S, S) map and torch's cross-entropy, in float64."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.testing import assert_close

from c2am import ops
from c2am.kernels import front_door_loss as kernels
from c2am.ops import checks

POOLINGS = ["mean", "max", "lse"]
PROBABILITIES = ["logit", "sigmoid"]
BACKENDS = ["reference", "native", "triton"]
Check = Callable[[Tensor, Tensor, Tensor], None]


def plain(
    logits: Tensor, labels: Tensor, global_cam: Tensor, pooling: str, gamma: float, probability: str
) -> Tensor:
    """Eq. 3 as written, and its cross-entropy, in the dtype of the logits."""
    p = logits.sigmoid() if probability == "sigmoid" else logits
    maps = gamma * p[:, :, None, None] * global_cam.to(p.dtype)
    if pooling == "mean":
        scores = maps.mean((2, 3))
    elif pooling == "max":
        scores = maps.amax((2, 3))
    else:
        scores = maps.logsumexp((2, 3)) - torch.tensor(global_cam[0].numel()).to(p).log()
    return binary_cross_entropy_with_logits(scores, labels.to(p.dtype))


def inputs(shape: tuple[int, int, int], dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    batch, classes, side = shape
    logits = (3 * torch.randn(batch, classes)).to(dtype)
    return logits, (torch.rand(batch, classes) > 0.7).float(), torch.rand(classes, side, side)


def value_and_gradient(loss: Callable[[Tensor], Tensor], logits: Tensor) -> tuple[Tensor, Tensor]:
    logits = logits.detach().requires_grad_()
    value = loss(logits)
    return value.detach(), torch.autograd.grad(value, logits, torch.full_like(value, 1.5))[0]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", checks.FEATURES, ids=str)
@pytest.mark.parametrize("probability", PROBABILITIES)
@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.usefixtures("nan_in_fresh_memory")
def test_value_and_gradient(
    pooling: str,
    probability: str,
    dtype: torch.dtype,
    backend: str,
    device: torch.device,
    launched: Callable[[str, str], int],
    within_error_budget: Check,
) -> None:
    for shape in [(1, 1, 1), (3, 4, 7), (2, 5, 35), (2, 80, 3)]:
        logits, labels, global_cam = (t.to(device) for t in inputs(shape, dtype))
        options = {
            "labels": labels,
            "global_cam": global_cam,
            "pooling": pooling,
            "gamma": 2.0,
            "probability": probability,
        }
        loss = partial(ops.front_door_loss, backend=backend, **options)
        definition = partial(plain, **options)
        results = value_and_gradient(loss, logits)
        wide = logits.to(checks.accumulation_dtype(dtype))
        other = value_and_gradient(definition, wide)
        truth = value_and_gradient(definition, logits.double())
        within_error_budget(results[0], other[0], truth[0])
        within_error_budget(results[1], other[1].to(dtype), truth[1])
    for compiled in ("native", "triton"):
        assert launched("front_door_loss", compiled) == 4 * (backend == compiled)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_reference_gradient(pooling: str) -> None:
    logits, labels, global_cam = inputs((2, 3, 5), torch.float64)

    def loss(x: Tensor) -> Tensor:
        return ops.front_door_loss(x, labels, global_cam, pooling=pooling, backend="reference")

    assert torch.autograd.gradcheck(loss, logits.requires_grad_())


@pytest.mark.parametrize("backend", BACKENDS)
def test_large_logits_do_not_overflow(backend: str, device: torch.device) -> None:
    logits = torch.tensor([[1e4, -1e4]], device=device)
    maps = torch.ones(2, 3, 3, device=device)
    labels = torch.tensor([[0.0, 1.0]], device=device)
    value, gradient = value_and_gradient(
        lambda x: ops.front_door_loss(x, labels, maps, backend=backend), logits
    )
    assert_close(value.cpu(), torch.tensor(1e4))
    assert_close(gradient.cpu(), 1.5 * torch.tensor([[0.5, -0.5]]))


def test_triton_shows_logits_that_are_not_finite(triton_device: torch.device) -> None:
    """Of CUDA tensors no value is checked: they have to show in the result."""
    logits, labels, maps = (t.to(triton_device) for t in inputs((3, 4, 5), torch.float32))
    logits[1, 2] = float("nan")
    loss, gradient = kernels.front_door_loss(logits, labels, maps.flatten(1), "lse", 1.0, False)
    assert loss.isnan()
    assert gradient.isnan().nonzero().tolist() == [[1, 2]]


def test_half_a_gradient_for_half_logits() -> None:
    logits, labels, maps = inputs((2, 3, 5), torch.bfloat16)
    logits.requires_grad_()
    ops.front_door_loss(logits, labels, maps).backward()
    assert logits.grad is not None
    assert logits.grad.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("logits", {"logits": torch.zeros(2, 3, dtype=torch.int64)}),
        ("logits", {"logits": torch.full((2, 3), float("nan"))}),
        ("B", {"logits": torch.zeros(0, 3), "labels": torch.zeros(0, 3)}),
        ("labels", {"labels": torch.zeros(3, 2)}),
        ("labels", {"labels": torch.full((2, 3), 1.5)}),
        ("labels", {"labels": torch.zeros(2, 3, requires_grad=True)}),
        ("global_cam", {"global_cam": torch.zeros(2, 5, 5)}),
        ("global_cam", {"global_cam": torch.full((3, 5, 5), float("inf"))}),
        ("global_cam", {"global_cam": torch.zeros(3, 5, 5, requires_grad=True)}),
        ("S", {"global_cam": torch.zeros(3, 0, 0)}),
        ("pooling", {"pooling": "sum"}),
        ("gamma", {"gamma": 0.0}),
        ("probability", {"probability": "softmax"}),
    ],
)
def test_bad_arguments_are_named(name: str, change: dict[str, object]) -> None:
    zeros = torch.zeros(2, 3)
    arguments = {"logits": zeros, "labels": zeros, "global_cam": torch.zeros(3, 5, 5)}
    with pytest.raises((ValueError, TypeError), match=f"front_door_loss: {name} "):
        ops.front_door_loss(**(arguments | change))  # type: ignore[arg-type]


@pytest.mark.parametrize("backend", BACKENDS)
def test_opcheck(backend: str, device: torch.device) -> None:
    logits, labels, maps = (t.to(device) for t in inputs((3, 4, 7), torch.float32))
    arguments = (logits.requires_grad_(), labels, maps, "lse", 2.0, "sigmoid", backend)
    torch.library.opcheck(torch.ops.c2am.front_door_loss, arguments)
