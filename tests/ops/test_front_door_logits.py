"""front_door_logits against the (B, Z, S, S) map that it never forms, in float64."""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from c2am import ops
from c2am.ops import checks

POOLINGS = ["mean", "max", "lse"]
PROBABILITIES = ["logit", "sigmoid"]
BACKENDS = ["reference", "native", "triton"]
SHAPES = [(1, 1, 1), (3, 4, 7), (2, 5, 63), (2, 80, 3), (0, 4, 7), (2, 0, 7)]


def expected(
    logits: Tensor, global_cam: Tensor, pooling: str, gamma: float, probability: str
) -> Tensor:
    """Eq. 3 as written, in the dtype of the maps."""
    p = logits.to(global_cam.dtype)
    p = p.sigmoid() if probability == "sigmoid" else p
    maps = gamma * p[:, :, None, None] * global_cam
    if pooling == "mean":
        return maps.mean((2, 3))
    if pooling == "max":
        return maps.amax((2, 3))
    return maps.exp().mean((2, 3)).log()


def inputs(shape: tuple[int, int, int], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    batch, classes, side = shape
    return 3 * torch.randn(batch, classes).to(dtype), torch.rand(classes, side, side)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", checks.FEATURES, ids=str)
@pytest.mark.parametrize("probability", PROBABILITIES)
@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.usefixtures("nan_in_fresh_memory")
def test_matches_the_definition(
    pooling: str,
    probability: str,
    dtype: torch.dtype,
    backend: str,
    device: torch.device,
    launched: Callable[[str, str], int],
    within_error_budget: Callable[[Tensor, Tensor, Tensor], None],
) -> None:
    for shape in SHAPES:
        logits, global_cam = inputs(shape, dtype)
        result = ops.front_door_logits(
            logits.to(device),
            global_cam.to(device),
            pooling=pooling,
            gamma=2.0,
            probability=probability,
            backend=backend,
        )
        plain = global_cam.to(checks.accumulation_dtype(dtype))
        within_error_budget(
            result.cpu(),
            *(expected(logits, m, pooling, 2.0, probability) for m in (plain, plain.double())),
        )
    for compiled in ("native", "triton"):
        assert launched("front_door_logits", compiled) == 4 * (backend == compiled)


@settings(max_examples=30)
@given(
    shape=st.tuples(st.integers(0, 5), st.integers(0, 9), st.integers(1, 40)),
    pooling=st.sampled_from(POOLINGS),
    probability=st.sampled_from(PROBABILITIES),
    gamma=st.floats(0.01, 10),
    dtype=st.sampled_from(checks.FEATURES),
    seed=st.integers(0, 99),
)
def test_native_matches_reference_at_any_size(
    shape: tuple[int, int, int],
    pooling: str,
    probability: str,
    gamma: float,
    dtype: torch.dtype,
    seed: int,
    native_runs: Callable[..., AbstractContextManager[None]],
    within_error_budget: Callable[[Tensor, Tensor, Tensor], None],
) -> None:
    torch.manual_seed(seed)
    logits, global_cam = inputs(shape, dtype)
    cotangent = torch.randn(shape[:2])

    def scores_and_gradient(backend: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        leaf = logits.to(dtype, copy=True).requires_grad_()
        scores = ops.front_door_logits(
            leaf,
            global_cam.to(checks.accumulation_dtype(dtype)),
            pooling=pooling,
            gamma=gamma,
            probability=probability,
            backend=backend,
        )
        (gradient,) = torch.autograd.grad(scores, leaf, cotangent.to(scores.dtype))
        return scores.detach(), gradient

    with native_runs("front_door_logits", times=int(logits.numel() > 0)):
        native = scores_and_gradient("native", dtype)
    plain = scores_and_gradient("reference", dtype)
    truth = scores_and_gradient("reference", torch.float64)
    for values in zip(native, plain, truth, strict=True):
        within_error_budget(*values)


@pytest.mark.parametrize("backend", BACKENDS)
def test_lse_keeps_the_digits_of_small_logits(backend: str, device: torch.device) -> None:
    logits = torch.tensor([[1e-5, -1e-5, 0.0]])
    global_cam = torch.rand(3, 5, 5)
    result = ops.front_door_logits(
        logits.to(device), global_cam.to(device), pooling="lse", backend=backend
    )
    truth = expected(logits, global_cam.double(), "lse", 1.0, "logit").float()
    assert_close(result.cpu(), truth, rtol=1e-5, atol=0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_lse_of_large_logits_does_not_overflow(backend: str, device: torch.device) -> None:
    logits, global_cam = torch.tensor([[1e4, -1e4]]), torch.rand(2, 9, 9)
    result = ops.front_door_logits(
        logits.to(device), global_cam.to(device), pooling="lse", backend=backend
    )
    products = logits.double()[:, :, None] * global_cam.flatten(1).double()
    truth = products.logsumexp(2) - torch.tensor(81.0).double().log()
    assert_close(result.cpu(), truth.float())


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("probability", PROBABILITIES)
@pytest.mark.parametrize("pooling", POOLINGS)
def test_gradient(pooling: str, probability: str, backend: str, device: torch.device) -> None:
    logits = torch.randn(2, 3, dtype=torch.float64, device=device, requires_grad=True)
    global_cam = torch.rand(3, 5, 5, dtype=torch.float64, device=device)

    def scores(logits: Tensor) -> Tensor:
        return ops.front_door_logits(
            logits,
            global_cam,
            pooling=pooling,
            gamma=2.0,
            probability=probability,
            backend=backend,
        )

    assert torch.autograd.gradcheck(scores, logits)


def test_gradient_of_half_logits_is_half() -> None:
    logits = torch.randn(2, 3, dtype=torch.bfloat16, requires_grad=True)
    global_cam = torch.rand(3, 5, 5)
    ops.front_door_logits(logits, global_cam).sum().backward()
    assert_close(logits.grad, global_cam.mean((1, 2)).expand(2, 3).bfloat16())


def test_mean_pooling_is_a_scale_per_class() -> None:
    """Eq. 6: with mean pooling the layout of the map cannot matter."""
    logits, global_cam = inputs((4, 3, 8), torch.float32)
    shuffled = global_cam.flatten(1)[:, torch.randperm(64)].view(3, 8, 8)
    scores = ops.front_door_logits(logits, global_cam)
    assert_close(scores, logits * global_cam.mean((1, 2)))
    assert_close(scores, ops.front_door_logits(logits, shuffled))


@pytest.mark.parametrize("backend", ["reference", "native"])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_memory_stays_below_a_map_per_image_and_class(
    pooling: str, backend: str, largest_allocation: Callable[..., int]
) -> None:
    logits, global_cam = inputs((8, 20, 32), torch.float32)
    size = largest_allocation(
        lambda: ops.front_door_logits(logits, global_cam, pooling=pooling, backend=backend)
    )
    assert size <= 2 * global_cam.nbytes  # (B, Z, S, S) is 8 times as large


@pytest.mark.parametrize("dtype", checks.FLOATS, ids=str)
@pytest.mark.parametrize("scale", [1e-6, 1e-2, 1.0, 30.0, 1e3])
def test_native_lse_to_the_last_digits(dtype: torch.dtype, scale: float) -> None:
    """Scores and slopes of logits of any size, of maps of any sign, against float64."""
    logits = (scale * torch.randn(4, 3, dtype=torch.float64)).to(dtype)
    global_cam = torch.randn(3, 37, 37, dtype=torch.float64).to(dtype)
    products = logits.double()[:, :, None] * global_cam.double().flatten(1)
    scores, slopes = torch.ops.c2am.front_door_logits(
        logits, global_cam, "lse", 1.0, "logit", "native"
    )
    rtol = 1e-5 if dtype == torch.float32 else 1e-12
    truth = products.exp().mean(2).log() if scale <= 1 else products.logsumexp(2) - math.log(37**2)
    weighted = (products.softmax(2) * global_cam.double().flatten(1)).sum(2)
    assert_close(slopes.double(), weighted, rtol=rtol, atol=rtol)
    if scale > 1e-6:  # below, the logarithm of 1 + 1e-6 has lost the digits of the truth
        assert_close(scores.double(), truth, rtol=rtol, atol=rtol * scale)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", ["logits", "global_cam"])
@pytest.mark.parametrize("at", [0, 5, -1])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_native_finds_bad_values_anywhere(pooling: str, name: str, at: int, value: float) -> None:
    logits, global_cam = inputs((3, 4, 37), torch.float32)
    {"logits": logits, "global_cam": global_cam}[name].flatten()[at] = value
    with pytest.raises(ValueError, match=f"front_door_logits: {name} has "):
        ops.front_door_logits(logits, global_cam, pooling=pooling, backend="native")


@pytest.mark.parametrize("pooling", POOLINGS)
def test_native_does_not_depend_on_the_number_of_threads(
    pooling: str, several_threads: Iterator[int]
) -> None:
    arguments = inputs((3, 7, 37), torch.float32)
    first, *others = [
        ops.front_door_logits(*arguments, pooling=pooling, backend="native")
        for _ in several_threads
    ]
    assert all(other.equal(first) for other in others)


@pytest.mark.parametrize("backend", BACKENDS)
def test_strided_arguments(backend: str, device: torch.device) -> None:
    logits, global_cam = (t.to(device) for t in inputs((3, 4, 7), torch.float32))
    strided = ops.front_door_logits(
        logits.T.contiguous().T, global_cam.mT.contiguous().mT, pooling="max", backend=backend
    )
    assert_close(strided, ops.front_door_logits(logits, global_cam, pooling="max"))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("logits", {"logits": torch.zeros(2)}),
        ("logits", {"logits": torch.zeros(2, 3, dtype=torch.int64)}),
        ("logits", {"logits": torch.full((2, 3), float("nan"))}),
        ("global_cam", {"global_cam": torch.zeros(2, 5, 5)}),
        ("global_cam", {"global_cam": torch.zeros(3, 5, 4)}),
        ("global_cam", {"global_cam": torch.full((3, 5, 5), float("inf"))}),
        ("global_cam", {"global_cam": torch.zeros(3, 5, 5, requires_grad=True)}),
        ("S", {"global_cam": torch.zeros(3, 0, 0)}),
        ("pooling", {"pooling": "sum"}),
        ("gamma", {"gamma": 0.0}),
        ("probability", {"probability": "softmax"}),
    ],
)
def test_bad_arguments_are_named(name: str, change: dict[str, object]) -> None:
    arguments = {"logits": torch.zeros(2, 3), "global_cam": torch.zeros(3, 5, 5)}
    with pytest.raises((ValueError, TypeError), match=f"front_door_logits: {name} "):
        ops.front_door_logits(**(arguments | change))  # type: ignore[arg-type]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("pooling", POOLINGS)
def test_opcheck(pooling: str, backend: str, device: torch.device) -> None:
    logits, global_cam = (t.to(device) for t in inputs((3, 4, 7), torch.float32))
    logits.requires_grad_()
    arguments = (logits, global_cam, pooling, 2.0, "sigmoid", backend)
    torch.library.opcheck(torch.ops.c2am.front_door_logits, arguments)


def test_compiles_to_one_graph() -> None:
    logits, global_cam = inputs((3, 4, 7), torch.float32)
    logits.requires_grad_()
    compiled = torch.compile(ops.front_door_logits, fullgraph=True, backend="aot_eager")
    grads = []
    for function in (compiled, ops.front_door_logits):
        scores = function(logits, global_cam, pooling="lse", probability="sigmoid")
        grads.append(torch.autograd.grad(scores.square().sum(), logits)[0])
    assert_close(*grads)
