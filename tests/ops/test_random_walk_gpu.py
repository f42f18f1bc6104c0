"""random_walk on a GPU: the compiled kernels against the CPU's core and the plain reference."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from walk_inputs import maps

from c2am import ops

pytestmark = pytest.mark.gpu

METHODS = ["chebyshev", "power"]
TOLERANCE = 5e-5  # of float32, of values up to 2 after 256 steps


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "size", [(1, 1), (7, 3), (1, 20), (20, 1), (63, 100), (94, 125), (131, 257)], ids=str
)
@pytest.mark.usefixtures("nan_in_fresh_memory")
def test_native_matches_reference(
    size: tuple[int, int], method: Any, launched: Callable[[str, str], int]
) -> None:
    cam, edge = maps(3, *size)
    result = ops.random_walk(cam.cuda(), edge.cuda(), method=method, backend="native")
    assert launched("random_walk", "native") == 1
    expected = ops.random_walk(cam.double(), edge.double(), method=method, backend="reference")
    assert_close(result.cpu().double(), expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("radius", [1.5, 2, 3.7, 5, 10, 16])
@pytest.mark.parametrize("steps", [0, 1, 2, 3, 41])
@pytest.mark.usefixtures("nan_in_fresh_memory")
def test_steps_between_exchanges(steps: int, radius: float) -> None:
    """Of small radii several steps share an exchange; their number need not divide that of all."""
    cam, edge = maps(5, 67, 81)
    walk: dict[str, Any] = {"radius": radius, "steps": steps, "method": "power"}
    result = ops.random_walk(cam.cuda(), edge.cuda(), backend="native", **walk)
    expected = ops.random_walk(cam, edge, backend="native", **walk)
    assert_close(result.cpu(), expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("count", [1, 4, 5, 21, 64, 128])
def test_any_number_of_maps(count: int) -> None:
    cam, edge = maps(count, 40, 50)
    result = ops.random_walk(cam.cuda(), edge.cuda(), steps=40, backend="native")
    expected = ops.random_walk(cam, edge, steps=40, backend="native")
    assert_close(result.cpu(), expected, rtol=0, atol=TOLERANCE)


def test_maps_that_do_not_fit_on_the_chip() -> None:
    """There each step is a launch, as wherever there are more tiles than multiprocessors."""
    cam, edge = maps(2, 1000, 1400)
    result = ops.random_walk(cam.cuda(), edge.cuda(), steps=20, backend="native")
    expected = ops.random_walk(cam, edge, steps=20, backend="native")
    assert_close(result.cpu(), expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.usefixtures("nan_in_fresh_memory")
def test_a_batch(method: Any, launched: Callable[[str, str], int]) -> None:
    """Of more pixels than share a launch, and of more maps than an image in a grid has."""
    shapes = [(3, 7, 5), (1, 300, 400), (21, 30, 20), (0, 4, 4), (130, 3, 9), (2, 300, 500)]
    shapes += [(3, 94, 125)] * 20
    cams, edges = zip(*(maps(*shape) for shape in shapes), strict=True)
    results = ops.random_walk_batch(
        [cam.cuda() for cam in cams],
        [edge.cuda() for edge in edges],
        steps=40,
        method=method,
        backend="native",
    )
    assert launched("random_walk", "native") == 1
    for cam, edge, result in zip(cams, edges, results, strict=True):
        expected = ops.random_walk(cam, edge, steps=40, method=method, backend="native")
        assert_close(result.cpu(), expected, rtol=0, atol=TOLERANCE)
    assert ops.random_walk_batch([], []) == []


@pytest.mark.parametrize("radius", [2.0, 5.0])
def test_nan_stays_in_its_image(radius: float) -> None:
    """Also where another one shares its launch, and 256 steps lead across what is between them."""
    cams, edges = zip(*(maps(3, height, 40) for height in (30, 25)), strict=True)
    nan, other = torch.full_like(cams[0], torch.nan).cuda(), cams[1].cuda()
    on_device = [edge.cuda() for edge in edges]
    first, second = ops.random_walk_batch([nan, other], on_device, radius=radius, backend="native")
    assert first.isnan().all()
    alone = ops.random_walk(other, on_device[1], radius=radius, backend="native")
    assert second.equal(alone)


@pytest.mark.parametrize("shape", [(0, 5, 5), (2, 0, 5), (2, 5, 0)], ids=str)
def test_empty(shape: tuple[int, ...]) -> None:
    cam, edge = torch.zeros(shape).cuda(), torch.zeros(shape[1:]).cuda()
    assert ops.random_walk(cam, edge, backend="native").shape == shape


def test_threads_and_streams() -> None:
    """Each call has a stream and memory of its own, and the same bits as any other."""
    images = [maps(3, height, 125) for height in (60, 94, 300, 500)]
    expected = [ops.random_walk(cam.cuda(), edge.cuda()).cpu() for cam, edge in images]

    def walk(image: tuple[Tensor, Tensor]) -> Tensor:
        cam, edge = image
        with torch.cuda.stream(torch.cuda.Stream()):
            return ops.random_walk(cam.cuda(), edge.cuda(), backend="native").cpu()

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(walk, 4 * images))
    assert all(map(torch.equal, results, 4 * expected))


def test_memory_is_torchs_and_given_back() -> None:
    cam, edge = (each.cuda() for each in maps(3, 94, 125))
    ops.random_walk(cam, edge)
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    result = ops.random_walk(cam, edge)
    assert torch.cuda.max_memory_allocated() - before < 20e6
    del result
    assert torch.cuda.memory_allocated() == before


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_on_a_device_that_is_not_the_current_one() -> None:
    cam, edge = maps(3, 23, 31)
    result = ops.random_walk(cam.to("cuda:1"), edge.to("cuda:1"), backend="native")
    assert torch.cuda.current_device() == 0
    assert_close(result.cpu(), ops.random_walk(cam, edge), rtol=0, atol=TOLERANCE)
