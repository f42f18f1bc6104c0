"""affinity_loss against loops over pairs in float64; each backend against it."""

from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from c2am import ops
from c2am.ops import checks, paths

BACKENDS = ["reference", "native"]
LABELS = torch.tensor([0, 1, 2, 255])


def inputs(shape: tuple[int, int, int], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    batch, height, width = shape
    edge = torch.rand(batch, 1, height, width).to(dtype)
    return edge, LABELS[torch.randint(0, 4, shape)]


def values_and_gradients(edge: Tensor, label: Tensor, radius: float, backend: str) -> list[Tensor]:
    """The three losses and their gradients."""
    edge = edge.detach().requires_grad_()
    losses = ops.affinity_loss(edge, label, radius=radius, num_classes=2, backend=backend)
    gradients = [torch.autograd.grad(v, edge, retain_graph=True)[0] for v in losses]
    return [*(value.detach() for value in losses), *gradients]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(
    ("shape", "radius"), [((2, 1, 5), 2), ((0, 9, 9), 3), ((2, 63, 100), 5), ((1, 40, 57), 10)]
)
@pytest.mark.usefixtures("nan_in_fresh_memory")
def test_native_matches_reference(
    shape: tuple[int, int, int],
    radius: float,
    dtype: torch.dtype,
    launched: Callable[[str, str], int],
) -> None:
    edge, label = inputs(shape, dtype)
    native = values_and_gradients(edge, label, radius, "native")
    assert launched("affinity_loss", "native") == 1
    reference = values_and_gradients(edge.double(), label, radius, "reference")
    assert launched("affinity_loss", "native") == 1
    for value, expected in zip(native, reference, strict=True):
        assert_close(value, expected.to(dtype))


@pytest.mark.parametrize(
    ("shape", "radius", "dtype"),
    [
        ((2, 1, 5), 2, torch.float32),
        ((0, 9, 9), 3, torch.float32),
        ((2, 7, 9), 3.2, torch.float64),
        ((1, 22, 33), 3, torch.float32),  # several blocks
        ((1, 6, 9), 3, torch.float16),
        ((1, 9, 13), 5, torch.bfloat16),
        ((1, 12, 21), 10, torch.float32),
    ],
)
@pytest.mark.usefixtures("nan_in_fresh_memory")
def test_triton_matches_reference(
    shape: tuple[int, int, int],
    radius: float,
    dtype: torch.dtype,
    triton_device: torch.device,
    launched: Callable[[str, str], int],
    within_error_budget: Callable[[Tensor, Tensor, Tensor], None],
) -> None:
    edge, label = (t.to(triton_device) for t in inputs(shape, dtype))
    edge[..., ::2, :] = (edge[..., ::2, :] * 4).round() / 4  # equal values
    strided = edge.mT.contiguous().mT, label.mT.contiguous().mT
    results = values_and_gradients(*strided, radius, "triton")
    assert launched("affinity_loss", "triton") == (
        0 not in paths.interior_size(*shape[1:], radius) + shape
    )
    plain = values_and_gradients(edge, label, radius, "reference")
    truth = values_and_gradients(edge.double(), label, radius, "reference")
    for values in zip(results, plain, truth, strict=True):
        within_error_budget(*values)


def test_triton_without_gradient(triton_device: torch.device) -> None:
    edge, label = (t.to(triton_device) for t in inputs((2, 7, 9), torch.float32))
    losses = values_and_gradients(edge, label, 3, "triton")
    options = {"radius": 3, "backend": "triton", "num_classes": 2}
    plain = ops.affinity_loss(edge, label, **options)  # type: ignore[arg-type]
    assert_close(tuple(plain), tuple(losses[: len(plain)]), rtol=0, atol=0)


@settings(max_examples=30)
@given(st.integers(1, 20), st.integers(1, 40), st.floats(1.1, 6), st.integers(0, 99))
def test_equal_values_at_any_size(height: int, width: int, radius: float, seed: int) -> None:
    """Maxima that stand at several pixels of a path: the same one gets the gradient."""
    torch.manual_seed(seed)
    edge, label = inputs((2, height, width), torch.float64)
    edge = (edge * 3).round() / 3
    native, reference = (values_and_gradients(edge, label, radius, b) for b in BACKENDS)
    for value, expected in zip(native, reference, strict=True):
        assert_close(value, expected)


def test_the_number_of_threads_changes_nothing() -> None:
    edge, label = inputs((3, 90, 70), torch.float32)
    before = torch.get_num_threads()
    results = []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        results.append(values_and_gradients(edge, label, 5, "native"))
    torch.set_num_threads(before)
    for result in results[1:]:
        assert all(map(torch.equal, result, results[0]))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("label_dtype", [torch.uint8, torch.int64], ids=str)
@pytest.mark.parametrize(("shape", "radius"), [((2, 7, 3), 2), ((2, 6, 9), 3), ((1, 9, 11), 5)])
def test_matches_the_definition(
    shape: tuple[int, int, int],
    radius: float,
    backend: str,
    dtype: torch.dtype,
    label_dtype: torch.dtype,
    irn: ModuleType,
) -> None:
    edge, label = inputs(shape, dtype)
    losses = ops.affinity_loss(
        edge, label.to(label_dtype), radius=radius, num_classes=2, backend=backend
    )
    truth = irn.affinity_losses(edge.double(), label, radius)
    for name, value in truth.items():
        assert_close(getattr(losses, name), value.to(checks.accumulation_dtype(dtype)))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["fg_positive", "bg_positive", "negative"])
def test_gradient_of_each_loss_matches_the_definition(
    name: str, backend: str, irn: ModuleType
) -> None:
    edge, label = inputs((2, 6, 9), torch.float64)
    edge.requires_grad_()
    losses = ops.affinity_loss(edge, label, radius=3, num_classes=2, backend=backend)
    truth = irn.affinity_losses(edge, label, 3)[name]
    grad, expected = (torch.autograd.grad(v, edge)[0] for v in (getattr(losses, name), truth))
    assert_close(grad, expected)


def test_gradient() -> None:
    edge, label = inputs((2, 6, 9), torch.float64)
    edge.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda e: ops.affinity_loss(e, label, radius=3, num_classes=2), edge
    )


def test_gradient_of_a_half_edge_is_half() -> None:
    edge, label = inputs((2, 6, 9), torch.bfloat16)
    wide = edge.double().requires_grad_()
    edge.requires_grad_()
    for e in (edge, wide):
        ops.affinity_loss(e, label, radius=3, num_classes=2).total.backward()
    assert edge.grad is not None
    assert wide.grad is not None
    assert_close(edge.grad, wide.grad.bfloat16())


def test_total() -> None:
    losses = ops.AffinityLosses(torch.tensor(1.0), torch.tensor(3.0), torch.tensor(10.0))
    assert losses.total == 6.0  # ((1 + 3) / 2 + 10) / 2


def test_with_and_without_gradient_agree() -> None:
    edge, label = inputs((2, 20, 31), torch.float32)
    plain = ops.affinity_loss(edge, label, radius=5, num_classes=2)
    with_gradient = ops.affinity_loss(edge.requires_grad_(), label, radius=5, num_classes=2)
    assert not plain.total.requires_grad
    assert_close(tuple(v.detach() for v in with_gradient), tuple(plain), rtol=0, atol=0)


def test_equals_the_affinities_of_path_affinity() -> None:
    """The three losses, from the stored (B, P, N)."""
    edge, _ = inputs((2, 63, 100), torch.float32)
    label = torch.ones(2, 63, 100, dtype=torch.int64)
    affinity = ops.path_affinity(edge.double(), radius=5)
    losses = ops.affinity_loss(edge, label, radius=5, num_classes=1)
    assert_close(losses.fg_positive, -(affinity + 1e-5).log().mean().float())


@pytest.mark.parametrize("shape", [(0, 9, 9), (2, 1, 1), (2, 4, 30)], ids=str)
def test_no_pairs(shape: tuple[int, int, int]) -> None:
    edge, label = inputs(shape, torch.float32)
    edge.requires_grad_()
    losses = ops.affinity_loss(edge, label, radius=5, num_classes=2)
    losses.total.backward()
    assert tuple(losses) == (0, 0, 0)
    assert edge.grad is not None
    assert not edge.grad.any()


def test_void_takes_part_in_no_pair() -> None:
    edge, label = inputs((2, 9, 9), torch.float32)
    edge.requires_grad_()
    losses = ops.affinity_loss(edge, torch.full_like(label, 255), radius=3, num_classes=2)
    losses.total.backward()
    assert tuple(losses) == (0, 0, 0)
    assert edge.grad is not None
    assert not edge.grad.any()


def test_saturated_edges_stay_finite() -> None:
    for value in (0.0, 1.0):
        edge = torch.full((1, 1, 6, 9), value, requires_grad=True)
        _, label = inputs((1, 6, 9), torch.float32)
        ops.affinity_loss(edge, label, radius=3, num_classes=2).total.backward()
        assert edge.grad is not None
        assert edge.grad.isfinite().all()


def test_strided_arguments() -> None:
    edge, label = inputs((2, 6, 9), torch.float32)
    plain = ops.affinity_loss(edge, label, radius=3, num_classes=2)
    strided = ops.affinity_loss(
        edge.mT.contiguous().mT, label.mT.contiguous().mT, radius=3, num_classes=2
    )
    assert_close(tuple(strided), tuple(plain), rtol=0, atol=0)


def test_the_affinities_are_not_stored(largest_allocation: Callable[..., int]) -> None:
    edge, label = inputs((2, 40, 40), torch.float32)
    edge.requires_grad_()
    size = largest_allocation(
        lambda: ops.affinity_loss(edge, label, radius=5, num_classes=2).total.backward()
    )
    affinities = ops.path_affinity(edge, radius=5)
    assert size <= 3 * edge.nbytes
    assert size < affinities.nbytes / 5


def test_triton_memory_of_a_training_batch(
    triton_device: torch.device, allocations: Callable[..., list[int]]
) -> None:
    """32 crops of 512 pixels take below 64 MB, even if nothing were freed before the end."""
    edge, label = (t.to(triton_device) for t in inputs((1, 20, 20), torch.float32))
    edge.requires_grad_()

    def step() -> None:
        ops.affinity_loss(edge, label, radius=3, num_classes=2, backend="triton").total.backward()

    step()  # makes the tables of paths
    assert sum(allocations(step)) * (32 * 128 * 128) / edge.numel() < 64e6


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("edge", {"edge": torch.zeros(2, 9, 9)}),
        ("edge", {"edge": torch.zeros(2, 1, 9, 9, dtype=torch.int64)}),
        ("edge", {"edge": torch.full((2, 1, 9, 9), 1.5)}),
        ("edge", {"edge": torch.full((2, 1, 9, 9), float("nan"))}),
        ("label", {"label": torch.zeros(2, 1, 9, 9, dtype=torch.int64)}),
        ("label", {"label": torch.zeros(2, 9, 9)}),
        ("label", {"label": torch.full((2, 9, 9), 3)}),
        ("label", {"label": torch.full((2, 9, 9), -1)}),
        ("radius", {"radius": 1}),
        ("num_classes", {"num_classes": 0}),
    ],
)
def test_bad_arguments_are_named(name: str, change: dict[str, object]) -> None:
    label = torch.zeros(2, 9, 9, dtype=torch.int64)
    arguments = {"edge": torch.zeros(2, 1, 9, 9), "label": label, "radius": 3, "num_classes": 2}
    with pytest.raises((ValueError, TypeError), match=f"affinity_loss: {name} "):
        ops.affinity_loss(**(arguments | change))  # type: ignore[arg-type]


@pytest.mark.parametrize("gradient", [False, True])
def test_opcheck(gradient: bool) -> None:
    edge, label = inputs((2, 6, 9), torch.float32)
    edge.requires_grad_(gradient)
    arguments = (edge, label, 3.0, 2, gradient, "auto")
    torch.library.opcheck(torch.ops.c2am.affinity_loss, arguments)


def test_compiles_to_one_graph() -> None:
    edge, label = inputs((2, 6, 9), torch.float32)
    edge.requires_grad_()

    def total(edge: Tensor) -> Tensor:
        return ops.affinity_loss(edge, label, radius=3, num_classes=2).total

    compiled = torch.compile(total, fullgraph=True, backend="aot_eager")
    grads = [torch.autograd.grad(function(edge), edge)[0] for function in (compiled, total)]
    assert_close(*grads)
