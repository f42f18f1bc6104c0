"""displacement_loss against loops over pairs in float64; each backend against it."""

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
    field = 3 * torch.randn(batch, 2, height, width).to(dtype)
    return field, LABELS[torch.randint(0, 4, shape)]


def values_and_gradients(field: Tensor, label: Tensor, radius: float, backend: str) -> list[Tensor]:
    """The two losses and their gradients."""
    field = field.detach().requires_grad_()
    losses = ops.displacement_loss(field, label, radius=radius, backend=backend)
    gradients = [torch.autograd.grad(v, field, retain_graph=True)[0] for v in losses]
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
    field, label = inputs(shape, dtype)
    native = values_and_gradients(field, label, radius, "native")
    assert launched("displacement_loss", "native") == 1
    reference = values_and_gradients(field.double(), label, radius, "reference")
    assert launched("displacement_loss", "native") == 1
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
    field, label = (t.to(triton_device) for t in inputs(shape, dtype))
    field[..., ::2, :] = (field[..., ::2, :] * 4).round() / 4  # equal values
    strided = field.mT.contiguous().mT, label.mT.contiguous().mT
    results = values_and_gradients(*strided, radius, "triton")
    assert launched("displacement_loss", "triton") == (
        0 not in paths.interior_size(*shape[1:], radius) + shape
    )
    plain = values_and_gradients(field, label, radius, "reference")
    truth = values_and_gradients(field.double(), label, radius, "reference")
    for values in zip(results, plain, truth, strict=True):
        within_error_budget(*values)


def test_triton_without_gradient(triton_device: torch.device) -> None:
    field, label = (t.to(triton_device) for t in inputs((2, 7, 9), torch.float32))
    losses = values_and_gradients(field, label, 3, "triton")
    options = {"radius": 3, "backend": "triton"}
    plain = ops.displacement_loss(field, label, **options)  # type: ignore[arg-type]
    assert_close(tuple(plain), tuple(losses[: len(plain)]), rtol=0, atol=0)


@settings(max_examples=30)
@given(st.integers(1, 20), st.integers(1, 40), st.floats(1.1, 6), st.integers(0, 99))
def test_equal_values_at_any_size(height: int, width: int, radius: float, seed: int) -> None:
    """Errors of exactly 0 have no slope."""
    torch.manual_seed(seed)
    field, label = inputs((2, height, width), torch.float64)
    field = (field * 3).round() / 3
    native, reference = (values_and_gradients(field, label, radius, b) for b in BACKENDS)
    for value, expected in zip(native, reference, strict=True):
        assert_close(value, expected)


def test_the_number_of_threads_changes_nothing() -> None:
    field, label = inputs((3, 90, 70), torch.float32)
    before = torch.get_num_threads()
    results = []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        results.append(values_and_gradients(field, label, 5, "native"))
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
    field, label = inputs(shape, dtype)
    losses = ops.displacement_loss(field, label.to(label_dtype), radius=radius, backend=backend)
    truth = irn.displacement_losses(field.double(), label, radius)
    for name, value in truth.items():
        assert_close(getattr(losses, name), value.to(checks.accumulation_dtype(dtype)))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["fg_positive", "bg_positive"])
def test_gradient_of_each_loss_matches_the_definition(
    name: str, backend: str, irn: ModuleType
) -> None:
    field, label = inputs((2, 6, 9), torch.float64)
    field.requires_grad_()
    losses = ops.displacement_loss(field, label, radius=3, backend=backend)
    truth = irn.displacement_losses(field, label, 3)[name]
    grad, expected = (torch.autograd.grad(v, field)[0] for v in (getattr(losses, name), truth))
    assert_close(grad, expected)


def test_gradient() -> None:
    field, label = inputs((2, 6, 9), torch.float64)
    field.requires_grad_()
    assert torch.autograd.gradcheck(lambda d: ops.displacement_loss(d, label, radius=3), field)


def test_vectors_to_a_common_centroid_cost_nothing() -> None:
    y, x = torch.meshgrid(torch.arange(12.0), torch.arange(15.0), indexing="ij")
    to_centroid = torch.stack([4.5 - y, 7.25 - x])[None]
    object_everywhere = torch.ones(1, 12, 15, dtype=torch.uint8)
    assert ops.displacement_loss(to_centroid, object_everywhere, radius=5).fg_positive == 0
    from_centroid = ops.displacement_loss(-to_centroid, object_everywhere, radius=5)
    assert from_centroid.fg_positive > 1
    constant = torch.full_like(to_centroid, 3)
    background = torch.zeros_like(object_everywhere)
    assert ops.displacement_loss(constant, background, radius=5).bg_positive == 0


def test_total() -> None:
    assert ops.DisplacementLosses(torch.tensor(1.0), torch.tensor(3.0)).total == 2.0


def test_with_and_without_gradient_agree() -> None:
    field, label = inputs((2, 20, 31), torch.float32)
    plain = ops.displacement_loss(field, label, radius=5)
    with_gradient = ops.displacement_loss(field.requires_grad_(), label, radius=5)
    assert not plain.total.requires_grad
    assert_close(tuple(v.detach() for v in with_gradient), tuple(plain), rtol=0, atol=0)


@pytest.mark.parametrize("shape", [(0, 9, 9), (2, 1, 1), (2, 4, 30)], ids=str)
def test_no_pairs(shape: tuple[int, int, int]) -> None:
    field, label = inputs(shape, torch.float32)
    field.requires_grad_()
    losses = ops.displacement_loss(field, label, radius=5)
    losses.total.backward()
    assert tuple(losses) == (0, 0)
    assert field.grad is not None
    assert not field.grad.any()


def test_gradient_of_a_half_field_is_half() -> None:
    field, label = inputs((2, 6, 9), torch.bfloat16)
    wide = field.double().requires_grad_()
    field.requires_grad_()
    for d in (field, wide):
        ops.displacement_loss(d, label, radius=3).total.backward()
    assert field.grad is not None
    assert wide.grad is not None
    assert_close(field.grad, wide.grad.bfloat16())


def test_strided_arguments() -> None:
    field, label = inputs((2, 6, 9), torch.float32)
    plain = ops.displacement_loss(field, label, radius=3)
    strided = ops.displacement_loss(field.mT.contiguous().mT, label.mT.contiguous().mT, radius=3)
    assert_close(tuple(strided), tuple(plain), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("displacement", {"displacement": torch.zeros(2, 1, 9, 9)}),
        ("displacement", {"displacement": torch.zeros(2, 2, 9, 9, dtype=torch.int64)}),
        ("displacement", {"displacement": torch.full((2, 2, 9, 9), float("nan"))}),
        ("label", {"label": torch.zeros(2, 9, 8, dtype=torch.int64)}),
        ("label", {"label": torch.zeros(2, 9, 9)}),
        ("label", {"label": torch.full((2, 9, 9), 256)}),
        ("radius", {"radius": 1}),
    ],
)
def test_bad_arguments_are_named(name: str, change: dict[str, object]) -> None:
    label = torch.zeros(2, 9, 9, dtype=torch.int64)
    arguments = {"displacement": torch.zeros(2, 2, 9, 9), "label": label, "radius": 3}
    with pytest.raises((ValueError, TypeError), match=f"displacement_loss: {name} "):
        ops.displacement_loss(**(arguments | change))  # type: ignore[arg-type]


@pytest.mark.parametrize("gradient", [False, True])
def test_opcheck(gradient: bool) -> None:
    field, label = inputs((2, 6, 9), torch.float32)
    field.requires_grad_(gradient)
    arguments = (field, label, 3.0, gradient, "auto")
    torch.library.opcheck(torch.ops.c2am.displacement_loss, arguments)


def test_compiles_to_one_graph() -> None:
    field, label = inputs((2, 6, 9), torch.float32)
    field.requires_grad_()

    def total(field: Tensor) -> Tensor:
        return ops.displacement_loss(field, label, radius=3).total

    compiled = torch.compile(total, fullgraph=True, backend="aot_eager")
    grads = [torch.autograd.grad(function(field), field)[0] for function in (compiled, total)]
    assert_close(*grads)
