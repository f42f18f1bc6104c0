"""path_affinity against loops over pairs and path pixels in float64; each backend against it."""

from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from c2am import ops
from c2am.kernels import path_affinity as kernels
from c2am.ops import checks, paths

BACKENDS = ["reference", "native"]


def expected(irn: ModuleType, edge: Tensor, radius: float) -> Tensor:
    """(B, P, N), pair by pair."""
    count = len(ops.path_offsets(radius))
    maps = [
        torch.stack([irn.affinity(e, s, t) for s, t in irn.pairs(*e.shape, radius)])
        for e in edge[:, 0].double()
    ]
    return torch.stack(maps).view(len(edge), count, -1)


def value_and_gradient(edge: Tensor, radius: float, backend: str) -> tuple[Tensor, Tensor]:
    """The affinities, and their gradient for a random cotangent that depends on the shape only."""
    edge = edge.detach().requires_grad_()
    affinity = ops.path_affinity(edge, radius=radius, backend=backend)
    cotangent = torch.randn(affinity.shape, generator=torch.Generator().manual_seed(1)).to(edge)
    (gradient,) = torch.autograd.grad(affinity, edge, cotangent)
    return affinity.detach(), gradient


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", checks.FEATURES, ids=str)
@pytest.mark.parametrize(("size", "radius"), [((7, 3), 2), ((6, 9), 3.2), ((9, 11), 5)])
def test_matches_the_definition(
    size: tuple[int, int], radius: float, dtype: torch.dtype, backend: str, irn: ModuleType
) -> None:
    edge = torch.rand(2, 1, *size).to(dtype)
    affinity = ops.path_affinity(edge, radius=radius, backend=backend)
    assert_close(affinity, expected(irn, edge, radius).to(dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("size", "radius"), [((1, 5), 2), ((63, 100), 5), ((40, 57), 10)])
@pytest.mark.usefixtures("nan_in_fresh_memory")
def test_native_matches_reference(
    size: tuple[int, int], radius: float, dtype: torch.dtype, launched: Callable[[str, str], int]
) -> None:
    edge = torch.rand(2, 1, *size, dtype=dtype)
    affinity, gradient = value_and_gradient(edge, radius, "native")
    assert launched("path_affinity", "native") == 2  # forward and backward
    wide_affinity, wide_gradient = value_and_gradient(edge.double(), radius, "reference")
    assert launched("path_affinity", "native") == 2
    assert_close(affinity, wide_affinity.to(dtype))
    # Gradients of both signs are summed, so that rounding is relative to the largest.
    largest = float(wide_gradient.abs().amax()) if wide_gradient.any() else 0.0
    assert_close(gradient, wide_gradient.to(dtype), rtol=0, atol=1e-6 * largest)


@pytest.mark.parametrize(
    ("shape", "radius", "dtype"),
    [
        ((2, 1, 5), 2, torch.float32),
        ((0, 9, 9), 3, torch.float32),
        ((2, 7, 9), 3.2, torch.float64),
        ((1, 9, 13), 5, torch.bfloat16),
        ((1, 22, 33), 3, torch.float32),  # several blocks
        ((1, 6, 9), 3, torch.float16),
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
    batch, *size = shape
    edge = torch.rand(batch, 1, *size).to(triton_device, dtype)
    edge[:, :, ::2] = (edge[:, :, ::2] * 4).round() / 4  # equal values, of which one is chosen
    results = value_and_gradient(edge.mT.contiguous().mT, radius, "triton")
    assert launched("path_affinity", "triton") == (2 if results[0].numel() else 0)
    plain = value_and_gradient(edge, radius, "reference")
    truth = value_and_gradient(edge.double(), radius, "reference")
    for values in zip(results, plain, truth, strict=True):
        within_error_budget(*values)


def test_triton_shows_bad_numbers(triton_device: torch.device) -> None:
    """Of CUDA tensors no value is checked: what is not finite has to show in the result."""
    edge = torch.rand(1, 7, 9, device=triton_device)
    chains = paths.path_chains(3, triton_device)
    grad = torch.rand(1, 12, 25, device=triton_device)
    grad[0, 3, 7] = float("inf")
    assert kernels.path_affinity_backward(grad, edge, *chains, 2, terms=60).isnan().all()
    edge[0, 3, 4] = float("nan")
    affinity = torch.zeros_like(grad)
    kernels.path_affinity(edge, affinity, *chains, 2)
    expected = ops.path_affinity(edge[:, None].nan_to_num(2) / 2, radius=3) == 0
    assert affinity.isnan().equal(expected)


def test_the_sum_of_all_paths_through_a_pixel_fits(triton_device: torch.device) -> None:
    edge = torch.zeros(1, 1, 9, 17, device=triton_device)
    edge[..., 4, 8] = 1  # the maximum of all paths through it
    edge.requires_grad_()
    affinity = ops.path_affinity(edge, radius=5, backend="triton")
    (gradient,) = torch.autograd.grad(affinity, edge, torch.full_like(affinity, 1.9))
    paths_through = (affinity == 0).sum().double()
    assert_close(gradient[0, 0, 4, 8].double(), -1.9 * paths_through)

    chains = paths.path_chains(5, triton_device)
    few = kernels.path_affinity_backward(
        torch.full_like(affinity.detach(), 1.9), edge.detach()[:, 0], *chains, 4, terms=1
    )
    assert few[0, 4, 8] != gradient[0, 0, 4, 8]  # with fewer `terms` the integers overflow


@settings(max_examples=30)
@given(st.integers(1, 20), st.integers(1, 40), st.floats(1.1, 6), st.integers(1, 4))
def test_equal_values_at_any_size(height: int, width: int, radius: float, levels: int) -> None:
    """Maxima of few levels are met many times: the same pixel gets the gradient."""
    edge = torch.randint(0, levels, (2, 1, height, width)).double() / 4
    for values in zip(*(value_and_gradient(edge, radius, b) for b in BACKENDS), strict=True):
        assert_close(*values)


def test_the_number_of_threads_changes_nothing() -> None:
    edge = torch.rand(3, 1, 90, 70)
    before = torch.get_num_threads()
    results = []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        results.append(value_and_gradient(edge, 5, "native"))
    torch.set_num_threads(before)
    for result in results[1:]:
        assert all(map(torch.equal, result, results[0]))


@pytest.mark.parametrize(
    ("shape", "radius", "pairs"),
    [((2, 1, 1, 1), 5, 0), ((1, 1, 4, 30), 5, 0), ((0, 1, 9, 9), 5, 5), ((1, 1, 63, 100), 5, 5428)],
)
def test_shape(shape: tuple[int, ...], radius: float, pairs: int) -> None:
    affinity = ops.path_affinity(torch.rand(shape), radius=radius)
    assert affinity.shape == (shape[0], 34, pairs)


def test_a_wall_parts_its_two_sides() -> None:
    edge = torch.zeros(1, 1, 8, 9)
    edge[..., 4] = 1
    affinity = ops.path_affinity(edge, radius=3)
    right_by_two = [(p.dy, p.dx) for p in ops.path_offsets(3)].index((0, 2))
    # Sources are the columns 2..6; those from 2 to 4 meet the wall at 4.
    assert affinity[0, right_by_two].view(6, 5)[0].tolist() == [0, 0, 0, 1, 1]


def test_strided_edge() -> None:
    edge = torch.rand(2, 1, 9, 12)
    strided = edge.mT.contiguous().mT
    assert ops.path_affinity(strided, radius=3).equal(ops.path_affinity(edge, radius=3))


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradient(backend: str) -> None:
    edge = torch.rand(2, 1, 6, 9, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda e: ops.path_affinity(e, radius=3, backend=backend), edge)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradient_of_equal_pixels_goes_to_the_source(backend: str) -> None:
    edge = torch.full((1, 1, 6, 9), 0.5, requires_grad=True)
    ops.path_affinity(edge, radius=3, backend=backend).sum().backward()
    assert edge.grad is not None
    interior = torch.zeros(6, 9)
    interior[:4, 2:7] = -12  # displacements
    assert_close(edge.grad[0, 0], interior)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_gradient_of_a_half_edge_is_half(dtype: torch.dtype) -> None:
    edge = torch.rand(1, 1, 6, 9).to(dtype).requires_grad_()
    wide = edge.detach().double().requires_grad_()
    for e in (edge, wide):
        ops.path_affinity(e, radius=3).double().square().mean().backward()
    assert edge.grad is not None
    assert wide.grad is not None
    assert_close(edge.grad, wide.grad.to(dtype), rtol=0.05, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "edge", "radius"),
    [
        ("edge", torch.zeros(2, 9, 9), 3),
        ("edge", torch.zeros(2, 2, 9, 9), 3),
        ("edge", torch.zeros(2, 1, 9, 9, dtype=torch.uint8), 3),
        ("edge", torch.full((2, 1, 9, 9), float("nan")), 3),
        ("radius", torch.zeros(2, 1, 9, 9), 1),
    ],
)
def test_bad_arguments_are_named(name: str, edge: Tensor, radius: float) -> None:
    with pytest.raises((ValueError, TypeError), match=f"path_affinity: {name} "):
        ops.path_affinity(edge, radius=radius)


def test_opcheck() -> None:
    edge = torch.rand(2, 1, 6, 9, requires_grad=True)
    torch.library.opcheck(torch.ops.c2am.path_affinity, (edge, 3.0, "auto"))
    grad = torch.rand(2, 12, 20)
    backward = torch.ops.c2am.path_affinity_backward
    torch.library.opcheck(backward, (grad, edge.detach(), 3.0, "auto"))


def test_compiles_to_one_graph() -> None:
    edge = torch.rand(2, 1, 6, 9, requires_grad=True)
    compiled = torch.compile(ops.path_affinity, fullgraph=True, backend="aot_eager")
    grads = [
        torch.autograd.grad(function(edge, radius=3).square().sum(), edge)[0]
        for function in (compiled, ops.path_affinity)
    ]
    assert_close(*grads)
