"""multi_scale_cam against the definition in float64, map by map."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from c2am import ops
from c2am.ops import checks

BACKENDS = ["reference", "native", "triton"]
SIZES = [(1, 1), (7, 3), (31, 70)]


def scales(dtype: torch.dtype = torch.float32, count: int = 3) -> list[Tensor]:
    """Maps of three scales, of which the second map is zero."""
    maps = [10 * torch.rand(count, *size).to(dtype) for size in ((4, 6), (1, 1), (9, 13))]
    for each in maps:
        each[1:2] = 0
    return maps


def expected(maps: list[Tensor], size: tuple[int, int], eps: float = 1e-5) -> list[Tensor]:
    """Strided by 4, and cropped from a multiple of 16."""
    height, width = size
    merged = []
    for resized, kept in (
        (((height + 3) // 4, (width + 3) // 4),) * 2,
        (((height + 15) // 16 * 16, (width + 15) // 16 * 16), size),
    ):
        total = torch.zeros(len(maps[0]), *kept, dtype=torch.float64)
        for k in range(len(total)):
            for each in maps:
                one = F.interpolate(each[k].double()[None, None], resized, mode="bilinear")
                total[k] += one[0, 0, : kept[0], : kept[1]]
            total[k] /= total[k].max() + eps
        merged.append(total)
    return merged


@pytest.mark.parametrize("dtype", checks.FEATURES, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.usefixtures("nan_in_fresh_memory")
def test_matches_the_definition(
    dtype: torch.dtype,
    size: tuple[int, int],
    backend: str,
    device: torch.device,
    launched: Callable[[str, str], int],
    within_error_budget: Callable[[Tensor, Tensor, Tensor], None],
) -> None:
    maps = scales(dtype)
    merged = ops.multi_scale_cam([each.to(device) for each in maps], size, backend=backend)
    plain = ops.multi_scale_cam(maps, size, backend="reference")
    for value, reference, truth in zip(merged, plain, expected(maps, size), strict=True):
        assert value.amax() < 1
        assert not value[1].any()
        within_error_budget(value, reference, truth)
    assert_close(merged.strided.cpu(), expected(maps, size)[0].to(merged.strided.dtype))
    for compiled in ("native", "triton"):
        assert (launched("multi_scale_cam", compiled) > 0) == (backend == compiled)


@settings(max_examples=30)
@given(
    count=st.integers(0, 4),
    sizes=st.lists(st.tuples(st.integers(1, 20), st.integers(1, 20)), min_size=1, max_size=4),
    size=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    stride=st.integers(1, 9),
    multiple=st.integers(1, 17),
    eps=st.floats(1e-5, 1),
    dtype=st.sampled_from(checks.FEATURES),
    seed=st.integers(0, 99),
)
def test_native_matches_reference_at_any_size(
    count: int,
    sizes: list[tuple[int, int]],
    size: tuple[int, int],
    stride: int,
    multiple: int,
    eps: float,
    dtype: torch.dtype,
    seed: int,
    native_runs: Callable[..., AbstractContextManager[None]],
    within_error_budget: Callable[[Tensor, Tensor, Tensor], None],
) -> None:
    torch.manual_seed(seed)
    maps = [10 * torch.rand(count, *each).to(dtype) for each in sizes]
    options: dict[str, Any] = {"stride": stride, "multiple": multiple, "eps": eps}
    with native_runs("multi_scale_cam", times=2 * (count > 0)):  # once for each resolution
        merged = ops.multi_scale_cam(maps, size, **options, backend="native")
    plain, truth = (
        ops.multi_scale_cam(each, size, **options, backend="reference")
        for each in (maps, [each.double() for each in maps])
    )
    for values in zip(merged, plain, truth, strict=True):
        within_error_budget(*values)


@pytest.mark.parametrize("backend", BACKENDS)
def test_strides_sizes_and_eps(backend: str, device: torch.device) -> None:
    maps = [each.mT.contiguous().mT.to(device) for each in scales()[:1]]
    merged = ops.multi_scale_cam(maps, (8, 12), stride=2, multiple=5, eps=0.5, backend=backend)
    (cam,) = maps
    for value, size in zip(merged, ((4, 6), (10, 15)), strict=True):
        total = F.interpolate(cam[None], size, mode="bilinear")[0][:, : value.shape[1]]
        total = total[:, :, : value.shape[2]]
        assert_close(value, total / (total.amax((1, 2), keepdim=True) + 0.5))
    assert merged.high_res.shape == (3, 8, 12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_map(backend: str, device: torch.device) -> None:
    maps = [each.to(device) for each in scales(count=0)]
    merged = ops.multi_scale_cam(maps, (33, 50), backend=backend)
    assert [each.shape for each in merged] == [(0, 9, 13), (0, 33, 50)]


def test_native_does_not_depend_on_the_number_of_threads(several_threads: Iterator[int]) -> None:
    maps = scales()
    first, *others = [
        ops.multi_scale_cam(maps, (375, 200), backend="native") for _ in several_threads
    ]
    for other in others:
        assert all(map(torch.equal, other, first))


@pytest.mark.parametrize("backend", BACKENDS[1:])
def test_what_is_not_finite_shows(backend: str, device: torch.device) -> None:
    """Of CUDA tensors no value is checked; of CPU tensors each scale is."""
    maps = [each.to(device) for each in scales()]
    maps[2][0, 4, 4] = float("nan")
    if device.type == "cpu":
        with pytest.raises(ValueError, match=r"multi_scale_cam: maps\[2\] has NaN"):
            ops.multi_scale_cam(maps, (37, 70), backend=backend)
    else:
        merged = ops.multi_scale_cam(maps, (37, 70), backend=backend)
        assert all(each[0].isnan().any() and not each[1:].isnan().any() for each in merged)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        (r"maps is empty", {"maps": []}),
        (r"maps\[1\] has shape", {"maps": [torch.rand(2, 3, 4), torch.rand(3, 3, 4)]}),
        (r"maps\[0\] has shape", {"maps": [torch.rand(3, 4)]}),
        (r"maps\[1\] is float64", {"maps": [torch.rand(2, 3, 4), torch.rand(2, 3, 4).double()]}),
        (r"maps\[0\] is int64", {"maps": [torch.zeros(2, 3, 4, dtype=torch.int64)]}),
        (r"maps\[0\] has values from -1", {"maps": [torch.full((2, 3, 4), -1.0)]}),
        (r"maps\[0\] requires a gradient", {"maps": [torch.rand(2, 3, 4, requires_grad=True)]}),
        (r"w is 0", {"maps": [torch.zeros(2, 3, 0)]}),
        (r"height is 0", {"size": (0, 5)}),
        (r"stride is 0", {"stride": 0}),
        (r"multiple is -1", {"multiple": -1}),
        (r"eps is 0", {"eps": 0}),
    ],
)
def test_bad_arguments_are_named(name: str, change: dict) -> None:
    arguments: dict = {"maps": scales(), "size": (7, 9)} | change
    with pytest.raises((ValueError, TypeError), match=f"multi_scale_cam: {name}"):
        ops.multi_scale_cam(**arguments)


@pytest.mark.parametrize("backend", BACKENDS)
def test_opcheck(backend: str, device: torch.device) -> None:
    maps = [each.to(device) for each in scales()]
    torch.library.opcheck(torch.ops.c2am.multi_scale_cam, (maps, 37, 50, 4, 16, 1e-5, backend))


def test_compiles_into_one_graph() -> None:
    compiled = torch.compile(ops.multi_scale_cam, fullgraph=True, backend="aot_eager")
    maps = scales()
    for value, same in zip(
        compiled(maps, (37, 50)), ops.multi_scale_cam(maps, (37, 50)), strict=True
    ):
        assert_close(value, same)
