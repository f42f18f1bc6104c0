"""random_walk: native against reference, the reference against dense matrices in float64."""

import math
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close
from walk_inputs import maps

from c2am import ops
from c2am.ops.random_walk_reference import chebyshev_coefficients

SIZES = [(1, 1), (7, 3), (1, 20), (20, 1), (63, 100)]
METHODS = ["chebyshev", "power"]
# Of values up to 2 after 256 steps.
TOLERANCE = {torch.float32: 5e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}


def transition(edge: Tensor, radius: float, beta: float) -> Tensor:
    """T (N, N) in float64, pixel pair by pixel pair."""
    height, width = edge.shape
    pixels = [(y, x) for y in range(height) for x in range(width)]
    matrix = torch.eye(len(pixels), dtype=torch.float64)
    for i, (y0, x0) in enumerate(pixels):
        for j, (y1, x1) in enumerate(pixels):
            dy, dx = y1 - y0, x1 - x0
            length = (dy * dy + dx * dx) ** 0.5
            if i == j or length >= radius:
                continue
            highest = max(
                float(edge[y, x])
                for y in range(min(y0, y1), max(y0, y1) + 1)
                for x in range(min(x0, x1), max(x0, x1) + 1)
                if abs(dy * (x - x0) - dx * (y - y0)) / length < 1 - 1e-9
            )
            matrix[i, j] = (1 - highest) ** beta
    return matrix / matrix.sum(0)


@pytest.mark.parametrize("backend", ["reference", "native"])
@pytest.mark.parametrize(
    ("radius", "beta", "steps"), [(5, 10, 256), (2, 1, 3), (3.5, 4, 30), (9, 0.5, 1)]
)
def test_is_the_power_of_the_transition_matrix(
    radius: float, beta: float, steps: int, backend: str
) -> None:
    cam, edge = maps(2, 9, 11)
    if backend == "reference":
        cam, edge = cam.double(), edge.double()
    walked = (cam * (1 - edge)).double().flatten(1)
    walked = walked @ torch.linalg.matrix_power(transition(edge, radius, beta), steps)
    result = ops.random_walk(
        cam, edge, radius=radius, beta=beta, steps=steps, method="power", backend=backend
    )
    assert_close(result.double(), walked.view_as(cam), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.usefixtures("nan_in_fresh_memory")
def test_native_matches_reference(
    count: int, size: tuple[int, int], method: Any, launched: Callable[[str, str], int]
) -> None:
    cam, edge = maps(count, *size)
    result = ops.random_walk(cam, edge, method=method, backend="native")
    assert launched("random_walk", "native") == 1
    expected = ops.random_walk(cam.double(), edge.double(), method=method, backend="reference")
    assert launched("random_walk", "native") == 1
    assert_close(result.double(), expected, rtol=0, atol=TOLERANCE[torch.float32])


@pytest.mark.parametrize("radius", [1.5, 2, 3.7, 10, 16])
def test_any_radius(radius: float) -> None:
    cam, edge = maps(1, 13, 17)
    edge = edge / 4
    result = ops.random_walk(cam, edge, radius=radius, backend="native")
    expected = ops.random_walk(cam.double(), edge.double(), radius=radius, backend="reference")
    assert_close(result.double(), expected, rtol=0, atol=TOLERANCE[torch.float32])


@pytest.mark.parametrize("backend", ["reference", "native"])
@pytest.mark.parametrize("dtype", [torch.float64, *TOLERANCE], ids=str)
def test_dtype_and_strides(dtype: torch.dtype, backend: str) -> None:
    cam, edge = maps(3, 13, 17)
    expected = ops.random_walk(cam.double(), edge.double(), backend="reference")
    last = cam.to(dtype).permute(1, 2, 0).contiguous().permute(2, 0, 1)
    result = ops.random_walk(last, edge.T.contiguous().T, backend=backend)
    assert result.dtype == dtype
    assert result.is_contiguous()
    tolerance = TOLERANCE.get(dtype, TOLERANCE[torch.float32])
    if backend == "reference" and dtype != torch.float64:
        tolerance += 1e-3  # it takes no care of the rounding over the steps, as the native one does
    assert_close(result.double(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("tolerance", [1e-2, 1e-4, 1e-6])
def test_chebyshev_keeps_its_bound(tolerance: float) -> None:
    cam, edge = (value.double() for value in maps(2, 12, 15))
    walk: dict[str, Any] = {"backend": "reference", "steps": 100}
    power = ops.random_walk(cam, edge, method="power", **walk)
    sum_ = ops.random_walk(cam, edge, method="chebyshev", tolerance=tolerance, **walk)
    degrees = 1 / transition(edge, 5, 10).diagonal()  # A_ii = 1
    start = cam * (1 - edge)

    def norm(x: Tensor) -> Tensor:
        return (degrees * x.flatten(1) ** 2).sum(1).sqrt()

    assert (norm(sum_ - power) <= tolerance * norm(start)).all()


TAILS = {64: 5e-5, 80: 4e-7}
"""Sum of the coefficients of x^256 above a degree, rounded up."""


@pytest.mark.parametrize("degree", TAILS)
def test_the_degree_of_256_steps(degree: int) -> None:
    """The error in float64, of the reference; float32 adds its rounding."""
    tail = TAILS[degree]
    assert sum(chebyshev_coefficients(256, 0.0)[degree + 1 :]) < tail
    tolerance = sum(chebyshev_coefficients(256, 0.0)[degree + 1 :]) * (1 + 1e-9)
    assert len(chebyshev_coefficients(256, tolerance)) == degree + 1
    cam, edge = (value.double() for value in maps(2, 25, 31))
    power = ops.random_walk(cam, edge, method="power", backend="reference")
    shortened = ops.random_walk(cam, edge, tolerance=tolerance, backend="reference")
    error = float((shortened - power).norm() / power.norm())
    assert error < tail
    assert error > tail / 1e4  # it is the degree that is measured, not rounding
    native = ops.random_walk(cam, edge, tolerance=tolerance, backend="native")
    assert float((native - power).norm() / power.norm()) < tail + 2e-6


@pytest.mark.parametrize("backend", ["reference", "native"])
def test_tolerance_zero_is_the_power(backend: str) -> None:
    cam, edge = maps(2, 11, 9)
    results = [
        ops.random_walk(cam, edge, steps=20, method=method, tolerance=0.0, backend=backend)
        for method in ("chebyshev", "power")
    ]
    assert_close(*results, rtol=0, atol=TOLERANCE[torch.float32])


@pytest.mark.parametrize("steps", [0, 1, 2, 5, 256, 2000])
def test_chebyshev_coefficients(steps: int) -> None:
    full = chebyshev_coefficients(steps, 0.0)
    assert sum(full) == pytest.approx(1)  # x^n and all T_k are 1 at 1
    x = torch.linspace(-1, 1, 41, dtype=torch.float64)
    value = sum(c * torch.special.chebyshev_polynomial_t(x, k) for k, c in enumerate(full))
    assert_close(value, x**steps, rtol=0, atol=1e-10)
    short = chebyshev_coefficients(steps, 1e-6)
    assert len(short) <= len(full)
    assert sum(full[len(short) :]) <= 1e-6
    if steps == 256:
        assert len(short) - 1 == 78  # products instead of 256
        assert full[4] == pytest.approx(math.comb(256, 126) / 2.0**255)


@pytest.mark.parametrize("backend", ["reference", "native"])
@pytest.mark.parametrize("method", METHODS)
def test_no_steps_and_one_step(method: Any, backend: str) -> None:
    cam, edge = maps(2, 6, 5)
    start = cam * (1 - edge)
    none = ops.random_walk(cam, edge, steps=0, method=method, backend=backend)
    assert_close(none, start)
    one = ops.random_walk(cam, edge, steps=1, method=method, backend=backend)
    expected = start.double().flatten(1) @ transition(edge, 5, 10)
    assert_close(one.double(), expected.view_as(start).double(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("backend", ["reference", "native"])
def test_a_closed_boundary_is_not_crossed(backend: str) -> None:
    cam, edge = torch.zeros(1, 12, 20), torch.zeros(12, 20)
    cam[:, :, :10] = 1
    edge[:, 10] = 1
    result = ops.random_walk(cam, edge, backend=backend)
    assert_close(result, cam)


@settings(max_examples=20)
@given(st.integers(0, 3), st.integers(1, 12), st.integers(1, 12), st.integers(0, 99))
def test_values_stay_within_their_range(count: int, height: int, width: int, seed: int) -> None:
    """T averages: its columns sum to 1 and none is negative."""
    torch.manual_seed(seed)
    cam, edge = maps(count, height, width)
    result = ops.random_walk(cam, edge)
    assert result.shape == cam.shape
    start = (cam * (1 - edge)).flatten(1)
    if count:
        low, high = start.amin(1) - 1e-4, start.amax(1) + 1e-4
        assert (result.flatten(1) >= low[:, None]).all()
        assert (result.flatten(1) <= high[:, None]).all()


def test_maps_do_not_touch_each_other() -> None:
    cam, edge = maps(5, 33, 47)
    result = ops.random_walk(cam, edge, backend="native")
    for k in range(5):
        assert result[k : k + 1].equal(ops.random_walk(cam[k : k + 1], edge, backend="native"))


@pytest.mark.parametrize("shape", [(0, 5, 5), (2, 0, 5), (2, 5, 0)], ids=str)
@pytest.mark.parametrize("backend", ["reference", "native"])
def test_empty(shape: tuple[int, ...], backend: str) -> None:
    result = ops.random_walk(torch.zeros(shape), torch.zeros(shape[1:]), backend=backend)
    assert result.shape == shape


def test_the_number_of_threads_changes_nothing() -> None:
    cam, edge = maps(2, 90, 110)
    before = torch.get_num_threads()
    results = []
    for threads in (1, 2, 5, 40):
        torch.set_num_threads(threads)
        results.append(ops.random_walk(cam, edge, backend="native"))
    torch.set_num_threads(before)
    assert all(result.equal(results[0]) for result in results)


@pytest.mark.parametrize("backend", ["reference", "native"])
def test_batch_of_images_of_different_sizes(
    backend: str, launched: Callable[[str, str], int]
) -> None:
    images = [maps(2, 7, 3), maps(0, 5, 5), maps(1, 30, 20), maps(5, 41, 50)]
    cams, edges = [cam for cam, _ in images], [edge for _, edge in images]
    results = ops.random_walk_batch(cams, edges, steps=30, backend=backend)
    assert launched("random_walk", "native") == (backend == "native")  # one call for all
    for (cam, edge), result in zip(images, results, strict=True):
        assert result.equal(ops.random_walk(cam, edge, steps=30, backend=backend))
    with pytest.raises(ValueError, match="random_walk: edges has length 3, expected 4"):
        ops.random_walk_batch(cams, edges[1:])
    assert ops.random_walk_batch([], []) == []


@settings(max_examples=40)
@given(
    st.tuples(st.integers(1, 9), st.integers(1, 40), st.integers(1, 40)),
    st.floats(1.1, 7),
    st.floats(0.5, 20),
    st.integers(0, 40),
    st.sampled_from(METHODS),
)
def test_native_matches_reference_at_any_size(
    shape: tuple[int, int, int], radius: float, beta: float, steps: int, method: Any
) -> None:
    cam, edge = maps(*shape)
    walk: dict[str, Any] = {"radius": radius, "beta": beta, "steps": steps, "method": method}
    result = ops.random_walk(cam, edge, **walk, backend="native")
    expected = ops.random_walk(cam.double(), edge.double(), **walk, backend="reference")
    assert_close(result.double(), expected, rtol=0, atol=TOLERANCE[torch.float32])


LARGE = """
import torch
from c2am import ops

def peak():  # VmHWM, since ru_maxrss begins with that of the parent
    lines = open("/proc/self/status").read().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024

cam, edge = torch.rand(3, 512, 512), torch.rand(512, 512)
ops.random_walk(cam[:, :9, :9], edge[:9, :9], steps=1, backend="native")
before = peak()
ops.random_walk(cam, edge, steps=2, backend="native")
print(peak() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_large_maps_take_little_memory() -> None:
    run = subprocess.run([sys.executable, "-c", LARGE], check=True, capture_output=True, text=True)
    megabytes = float(run.stdout)
    assert 30 < megabytes < 100  # 34 planes of 1 MB and the vectors of the walk


CAM, EDGE = torch.ones(2, 4, 5), torch.zeros(4, 5)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("cam", {"cam": CAM[0]}),
        ("cam", {"cam": CAM.int()}),
        ("cam", {"cam": CAM * float("nan")}),
        ("cam", {"cam": CAM.clone().requires_grad_()}),
        ("edge", {"edge": EDGE[1:]}),
        ("edge", {"edge": EDGE - 0.1}),
        ("edge", {"edge": EDGE + 1.1}),
        ("edge", {"edge": EDGE * float("nan")}),
        ("radius", {"radius": 1}),
        ("radius", {"radius": float("inf")}),
        ("beta", {"beta": 0.0}),
        ("steps", {"steps": -1}),
        ("steps", {"steps": 2.5}),
        ("radius", {"radius": (5, 5)}),
        ("method", {"method": "magic"}),
        ("tolerance", {"tolerance": -1e-6}),
        ("tolerance", {"tolerance": float("nan")}),
        ("backend", {"backend": "magic"}),
    ],
)
def test_bad_arguments_are_named(name: str, arguments: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError), match=f"random_walk: {name} "):
        ops.random_walk(**({"cam": CAM, "edge": EDGE} | arguments))


def test_a_backend_that_is_missing_is_an_error() -> None:
    with pytest.raises(ops.BackendError, match="random_walk"):
        ops.random_walk(CAM, EDGE, backend="triton")


def test_memory_grows_with_the_pixels(
    largest_allocation: Callable[[Callable[[], object]], int],
) -> None:
    """No N x N matrix: with the reference, no tensor is larger than a few dozen maps."""
    cam, edge = maps(1, 40, 40)
    used = largest_allocation(lambda: ops.random_walk(cam, edge, steps=2, backend="reference"))
    assert used < 60 * cam.nbytes


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("method", METHODS)
def test_opcheck(method: str, backend: str) -> None:
    cams, edges = zip(maps(2, 7, 3), maps(0, 5, 5), strict=True)
    arguments = (list(cams), list(edges), 5.0, 10.0, 8, method, 1e-6, backend)
    torch.library.opcheck(torch.ops.c2am.random_walk.default, arguments)


def test_a_compiled_graph_is_not_broken() -> None:
    compiled = torch.compile(ops.random_walk, fullgraph=True, backend="aot_eager")
    cam, edge = maps(2, 7, 3)
    assert_close(compiled(cam, edge), ops.random_walk(cam, edge))
