"""label_maps and random_walk_labels against the steps of the equation, one by one."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from c2am import ops
from c2am.ops import checks

BACKENDS = ["reference", "native"]
# K, h, w, H, W at stride 4
SHAPES = [
    (2, 1, 1, 1, 1),
    (3, 5, 7, 17, 28),
    (0, 3, 3, 9, 12),
    (1, 70, 2, 278, 8),
    (21, 3, 17, 12, 65),
]
Images = tuple[list[Tensor], list[Tensor], list[tuple[int, int]]]


def images(dtype: torch.dtype = torch.float32) -> Images:
    """Maps, some of whose values are below 0, with their classes and sizes."""
    maps = [(2.1 * torch.rand(k, h, w) - 0.1).to(dtype) for k, h, w, _, _ in SHAPES]
    classes = [torch.randperm(254)[: len(each)] for each in maps]
    return maps, classes, [(height, width) for _, _, _, height, width in SHAPES]


def check(labels: Tensor, maps: Tensor, classes: Tensor, threshold: float, stride: int = 4) -> None:
    """Every label is that of the largest quotient or of the threshold, but for rounding."""
    assert labels.dtype == torch.uint8
    height, width = labels.shape
    if len(maps) == 0 or labels.numel() == 0:
        assert not labels.any()
        return
    resized = [
        F.interpolate(m.double()[None, None], scale_factor=stride, mode="bilinear")[0] for m in maps
    ]
    full = torch.cat(resized)[:, :height, :width]
    quotients = full / full.max().clamp(min=1e-5)
    stacked = torch.cat([torch.full((1, height, width), threshold), quotients])
    place = torch.zeros(256, dtype=torch.int64)
    place[classes.long() + 1] = torch.arange(1, len(maps) + 1)
    chosen = stacked.gather(0, place[labels.long()][None])[0]
    assert (chosen >= stacked.amax(0) - 1e-5).all()
    assert set(labels.unique().tolist()) <= {0, *(classes + 1).tolist()}


@pytest.mark.parametrize("dtype", checks.FEATURES, ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.usefixtures("nan_in_fresh_memory")
def test_matches_the_equation(
    dtype: torch.dtype, backend: str, launched: Callable[[str, str], int]
) -> None:
    maps, classes, sizes = images(dtype)
    results = ops.label_maps(maps, classes, sizes, threshold=0.6, backend=backend)
    assert launched("label_maps", "native") == (backend == "native")  # one call for all
    for labels, each, of_maps, size in zip(results, maps, classes, sizes, strict=True):
        assert labels.shape == size
        check(labels, each, of_maps, 0.6)
    assert any(0 < labels.float().count_nonzero() < labels.numel() for labels in results)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("stride", [1, 2, 3, 8])
def test_strides(stride: int, backend: str) -> None:
    maps, classes = (
        torch.rand(3, 7, 9).mT.contiguous().mT,
        torch.tensor([4, 0, 19], dtype=torch.uint8),
    )
    size = (7 * stride - stride // 2, 9 * stride)
    (labels,) = ops.label_maps(
        [maps], [classes], [size], threshold=0.5, stride=stride, backend=backend
    )
    check(labels, maps, classes, 0.5, stride)


@settings(max_examples=30)
@given(
    shapes=st.lists(st.tuples(st.integers(0, 5), *[st.integers(0, 13)] * 2), max_size=3),
    kept=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    stride=st.integers(1, 6),
    threshold=st.floats(-0.5, 1.5),
    dtype=st.sampled_from(checks.FEATURES),
    seed=st.integers(0, 99),
)
def test_native_matches_the_equation_at_any_size(
    shapes: list[tuple[int, int, int]],
    kept: tuple[float, float],
    stride: int,
    threshold: float,
    dtype: torch.dtype,
    seed: int,
    native_runs: Callable[..., AbstractContextManager[None]],
) -> None:
    torch.manual_seed(seed)
    maps = [(2.1 * torch.rand(shape) - 0.1).to(dtype) for shape in shapes]
    classes = [torch.randperm(254)[: len(each)] for each in maps]
    sizes = [(round(kept[0] * stride * h), round(kept[1] * stride * w)) for _, h, w in shapes]
    any_label = any(k * h * w for (k, _, _), (h, w) in zip(shapes, sizes, strict=True))
    with native_runs("label_maps", times=int(any_label)):
        results = ops.label_maps(
            maps, classes, sizes, threshold=threshold, stride=stride, backend="native"
        )
    for labels, each, of_maps, size in zip(results, maps, classes, sizes, strict=True):
        assert labels.shape == size
        check(labels, each, of_maps, threshold, stride)


@pytest.mark.parametrize("backend", BACKENDS)
def test_ties_and_the_threshold(backend: str) -> None:
    """Of equal maps the first counts, and a value equal to the threshold is background."""
    maps = torch.tensor([1.0, 0.5, 0.25, 0.0]).expand(2, 1, 4).contiguous()
    (labels,) = ops.label_maps(
        [maps], [torch.tensor([8, 3])], [(1, 4)], threshold=0.5, stride=1, backend=backend
    )
    assert labels.tolist() == [[9, 0, 0, 0]]
    (zeros,) = ops.label_maps(
        [torch.zeros(1, 2, 2)], [torch.tensor([1])], [(8, 8)], threshold=0.0, backend=backend
    )
    assert not zeros.any()  # the maximum is no less than 1e-5
    # Only what is kept of a resized map counts for its maximum.
    wide = torch.tensor([[[0.5, 1.0]]])
    (cropped,) = ops.label_maps(
        [wide], [torch.tensor([0])], [(1, 1)], threshold=0.9, stride=1, backend=backend
    )
    assert cropped.item() == 1


def test_native_does_not_depend_on_the_number_of_threads(several_threads: Iterator[int]) -> None:
    maps, classes = torch.rand(3, 60, 50), torch.arange(3)
    first, *others = [
        ops.label_maps([maps], [classes], [(239, 200)], threshold=0.7, backend="native")[0]
        for _ in several_threads
    ]
    assert all(other.equal(first) for other in others)


@pytest.mark.parametrize("backend", BACKENDS)
def test_labels_of_a_walk_are_those_of_its_maps(backend: str) -> None:
    cams, edges = [torch.rand(2, 9, 11), torch.rand(1, 5, 4)], [torch.rand(9, 11), torch.rand(5, 4)]
    classes, sizes = [torch.tensor([3, 7]), torch.tensor([0])], [(35, 42), (20, 13)]
    walk: dict[str, Any] = {"radius": 3.0, "beta": 4.0, "steps": 9, "backend": backend}
    labels = ops.random_walk_labels(cams, edges, classes, sizes, threshold=0.4, **walk)
    walked = ops.random_walk_batch(cams, edges, **walk)
    expected = ops.label_maps(walked, classes, sizes, threshold=0.4, backend=backend)
    assert all(map(torch.equal, labels, expected))
    assert ops.random_walk_labels([], [], [], [], threshold=0.4) == []


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
def test_walked_maps_are_not_rounded_to_16_bits(dtype: torch.dtype, backend: str) -> None:
    cam, edge = torch.rand(2, 20, 25).to(dtype), (torch.rand(20, 25) ** 3).to(dtype)
    labels, expected = (
        ops.random_walk_labels(
            [c], [e], [torch.arange(2)], [(80, 100)], threshold=0.5, steps=9, backend=backend
        )[0]
        for c, e in ((cam, edge), (cam.float(), edge.float()))
    )
    assert labels.equal(expected)


ONE: dict[str, Any] = {
    "maps": [torch.rand(2, 3, 4)],
    "classes": [torch.arange(2)],
    "sizes": [(12, 16)],
    "threshold": 0.5,
}


@pytest.mark.parametrize(
    ("name", "change"),
    [
        (r"classes has length 0", {"classes": []}),
        (r"sizes has length 2", {"sizes": [(1, 1), (1, 1)]}),
        (r"maps\[0\] has shape", {"maps": [torch.rand(3, 4)]}),
        (r"maps\[0\] is int64", {"maps": [torch.zeros(2, 3, 4, dtype=torch.int64)]}),
        (r"maps\[0\] has NaN", {"maps": [torch.full((2, 3, 4), float("nan"))]}),
        (r"maps\[0\] requires a gradient", {"maps": [torch.rand(2, 3, 4, requires_grad=True)]}),
        (r"classes\[0\] has shape", {"classes": [torch.arange(3)]}),
        (r"classes\[0\] is float32", {"classes": [torch.rand(2)]}),
        (r"classes\[0\] has values from 0 to 254", {"classes": [torch.tensor([0, 254])]}),
        (r"sizes\[0\] is \(13, 16\), expected at most \(12, 16\)", {"sizes": [(13, 16)]}),
        (r"sizes\[0\] is \(-1, 16\)", {"sizes": [(-1, 16)]}),
        (r"sizes\[0\] is \(12, 16, 3\), expected two numbers", {"sizes": [(12, 16, 3)]}),
        (r"sizes\[0\] is 12, expected two numbers", {"sizes": [12]}),
        (r"threshold is nan", {"threshold": float("nan")}),
        (r"stride is 0", {"stride": 0}),
    ],
)
def test_bad_arguments_are_named(name: str, change: dict) -> None:
    with pytest.raises((ValueError, TypeError), match=f"label_maps: {name}"):
        ops.label_maps(**(ONE | change))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        (r"label_maps: classes has length 0, expected 1 as cams", {"classes": []}),
        (r"label_maps: classes\[0\] has shape", {"classes": [torch.arange(3)]}),
        (r"label_maps: sizes\[0\] is \(13, 16\)", {"sizes": [(13, 16)]}),
        (r"label_maps: threshold is nan", {"threshold": float("nan")}),
        (r"random_walk: edges has length 0", {"edges": []}),
        (r"random_walk: edge is list", {"edges": [[0.5]]}),
    ],
)
def test_bad_arguments_are_named_before_the_walk(
    name: str, change: dict, launched: Callable[[str, str], int]
) -> None:
    arguments = {"cams": ONE["maps"], "edges": [torch.rand(3, 4)], **ONE}
    del arguments["maps"]
    with pytest.raises((ValueError, TypeError), match=name):
        ops.random_walk_labels(**(arguments | change))
    assert launched("random_walk", "native") == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_opcheck(backend: str) -> None:
    maps, classes, sizes = images()
    flat = [side for size in sizes for side in size]
    torch.library.opcheck(torch.ops.c2am.label_maps, (maps, classes, flat, 4, 0.5, backend))


def test_compiles_into_one_graph() -> None:
    compiled = torch.compile(ops.label_maps, fullgraph=True, backend="aot_eager")
    assert compiled(**ONE)[0].equal(ops.label_maps(**ONE)[0])


@pytest.mark.gpu
@pytest.mark.usefixtures("nan_in_fresh_memory")
def test_native_on_a_gpu(launched: Callable[[str, str], int]) -> None:
    maps, classes, sizes = images()
    with torch.cuda.stream(torch.cuda.Stream()):
        device = [each.cuda() for each in maps]
        results = ops.label_maps(device, classes, sizes, threshold=0.6, backend="native")
        results = [labels.cpu() for labels in results]
    assert launched("label_maps", "native") == 1
    for labels, each, of_maps in zip(results, maps, classes, strict=True):
        check(labels, each, of_maps, 0.6)
    assert ops.label_maps([], [], [], threshold=0.5) == []


@pytest.mark.gpu
def test_a_walk_to_labels_on_a_gpu() -> None:
    shapes = [(3, 94, 125), (1, 1, 1), (21, 30, 20), (0, 4, 4)]
    cams = [torch.rand(*shape).cuda() for shape in shapes]
    edges = [torch.rand(*shape[1:]).cuda() ** 3 for shape in shapes]
    classes = [torch.arange(shape[0]) for shape in shapes]
    sizes = [(4 * height, 4 * width) for _, height, width in shapes]
    results = ops.random_walk_labels(cams, edges, classes, sizes, threshold=0.5)
    walked = ops.random_walk_batch(cams, edges)
    for labels, maps, of_maps in zip(results, walked, classes, strict=True):
        assert labels.is_cuda
        check(labels.cpu(), maps.cpu(), of_maps, 0.5)
