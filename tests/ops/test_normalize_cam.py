"""normalize_cam against a loop over the maps in float64."""

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

SHAPES = [(1, 1, 1), (4, 7, 3), (3, 63, 100), (0, 5, 5)]


def expected(cam: Tensor, eps: float = 1e-5) -> Tensor:
    """The definition, map by map."""
    return torch.stack([m / (max(m.flatten().tolist()) + eps) for m in cam])


def maps(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    cam = (10 * torch.rand(shape)).to(dtype)
    cam[1:2] = 0
    return cam


@pytest.mark.parametrize("dtype", checks.FEATURES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("backend", ["reference", "native", "triton"])
@pytest.mark.usefixtures("nan_in_fresh_memory")
def test_matches_the_definition(
    dtype: torch.dtype,
    shape: tuple[int, ...],
    backend: str,
    device: torch.device,
    launched: Callable[[str, str], int],
    within_error_budget: Callable[[Tensor, Tensor, Tensor], None],
) -> None:
    cam = maps(shape, dtype)
    result = ops.normalize_cam(cam.to(device), backend=backend)
    plain, truth = (expected(c) if len(c) else c for c in (cam, cam.double()))
    within_error_budget(result.cpu(), plain, truth)
    for compiled in ("native", "triton"):
        assert launched("normalize_cam", compiled) == (backend == compiled and len(cam) > 0)


@settings(max_examples=30)
@given(
    shape=st.tuples(st.integers(0, 5), st.integers(0, 40), st.integers(0, 70)),
    eps=st.floats(1e-5, 10),
    dtype=st.sampled_from(checks.FEATURES),
    transposed=st.booleans(),
    seed=st.integers(0, 99),
)
def test_native_matches_reference_at_any_size(
    shape: tuple[int, int, int],
    eps: float,
    dtype: torch.dtype,
    transposed: bool,
    seed: int,
    native_runs: Callable[..., AbstractContextManager[None]],
    within_error_budget: Callable[[Tensor, Tensor, Tensor], None],
) -> None:
    torch.manual_seed(seed)
    cam = maps(shape, dtype)
    cam = cam.mT if transposed else cam
    with native_runs("normalize_cam", times=int(cam.numel() > 0)):
        result = ops.normalize_cam(cam, eps=eps, backend="native")
    plain, truth = (
        ops.normalize_cam(each, eps=eps, backend="reference") for each in (cam, cam.double())
    )
    within_error_budget(result, plain, truth)


@pytest.mark.parametrize("backend", ["reference", "native", "triton"])
def test_zero_maps_stay_zero(backend: str, device: torch.device) -> None:
    cam = torch.zeros(2, 3, 4, device=device)
    assert ops.normalize_cam(cam, backend=backend).eq(0).all()


@pytest.mark.parametrize("backend", ["reference", "native", "triton"])
def test_eps_and_strides(backend: str, device: torch.device) -> None:
    cam = maps((5, 6, 4)).permute(2, 0, 1)
    result = ops.normalize_cam(cam.to(device), eps=0.5, backend=backend)
    assert_close(result.cpu(), expected(cam, 0.5))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_native_rounds_as_torch_does(dtype: torch.dtype) -> None:
    """Every positive number, subnormal ones too, over 3 and over 2."""
    numbers = torch.arange(2**15).short().view(dtype)
    cam = torch.where(numbers <= 2, numbers, 0).view(1, 128, 256)
    for eps in (1.0, 1e-5):
        result = ops.normalize_cam(cam, eps=eps, backend="native")
        assert result.equal(ops.normalize_cam(cam, eps=eps, backend="reference"))


@pytest.mark.parametrize("dtype", checks.FEATURES, ids=str)
@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("at", [0, 40000, -1])
def test_native_finds_bad_values_anywhere(dtype: torch.dtype, value: float, at: int) -> None:
    cam = torch.rand(2, 209, 201).to(dtype)
    cam.flatten()[at] = value
    with pytest.raises(ValueError, match="normalize_cam: cam has "):
        ops.normalize_cam(cam, backend="native")


def test_native_does_not_depend_on_the_number_of_threads(several_threads: Iterator[int]) -> None:
    cam = maps((3, 375, 500))
    first, *others = [ops.normalize_cam(cam, backend="native") for _ in several_threads]
    assert_close(first, expected(cam))
    assert all(other.equal(first) for other in others)


@pytest.mark.parametrize(
    ("name", "cam", "eps"),
    [
        ("cam", torch.zeros(3, 4), 1e-5),
        ("cam", torch.zeros(3, 4, 5, dtype=torch.int64), 1e-5),
        ("cam", torch.full((3, 4, 5), -1.0), 1e-5),
        ("cam", torch.full((3, 4, 5), float("nan")), 1e-5),
        ("cam", torch.zeros(3, 4, 5, requires_grad=True), 1e-5),
        ("eps", torch.zeros(3, 4, 5), 0),
    ],
)
def test_bad_arguments_are_named(name: str, cam: Tensor, eps: float) -> None:
    with pytest.raises((ValueError, TypeError), match=f"normalize_cam: {name} "):
        ops.normalize_cam(cam, eps=eps)


@pytest.mark.parametrize("backend", ["reference", "native", "triton"])
def test_opcheck(backend: str, device: torch.device) -> None:
    cam = maps((3, 7, 3)).to(device)
    torch.library.opcheck(torch.ops.c2am.normalize_cam, (cam, 1e-5, backend))


def test_values_are_checked_in_a_compiled_graph_too() -> None:
    compiled = torch.compile(ops.normalize_cam, fullgraph=True, backend="aot_eager")
    cam = maps((3, 7, 3))
    assert_close(compiled(cam), ops.normalize_cam(cam))
    with pytest.raises(ValueError, match="normalize_cam: cam has NaN"):
        compiled(torch.full_like(cam, float("nan")))
