"""accumulate_global_cam against exact sums of rationals."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional
from torch.testing import assert_close

from c2am import ops
from c2am.kernels import accumulate_global_cam as kernels
from c2am.ops import checks

BACKENDS = ["reference", "native", "triton"]


def state(classes: int, side: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    return torch.zeros(classes, side, side, dtype=dtype), torch.zeros(classes, dtype=torch.int64)


def maps(count: int, side: int, classes: int) -> tuple[Tensor, Tensor]:
    # Cubed, since `rand` draws multiples of 2^-24, which are exact anyway.
    cam = torch.rand(count, side, side) ** 3
    cam[2:3] = 0
    return cam, torch.randint(0, classes, (count,))


def expected(cam: Tensor, class_index: Tensor, classes: int) -> tuple[list[list[Fraction]], Tensor]:
    """Exact sums, pixel by pixel, of the values rounded to multiples of 2^-30, ties to even."""
    total = [[Fraction(0)] * cam[0].numel() for _ in range(classes)]
    count = torch.zeros(classes, dtype=torch.int64)
    for values, z in zip(cam.flatten(1).tolist(), class_index.tolist(), strict=True):
        count[z] += any(values)
        for i, value in enumerate(values):
            total[z][i] += Fraction(round(Fraction(value) * 2**30), 2**30)
    return total, count


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("side", "classes"), [(1, 80), (7, 1), (35, 4)])
def test_float64_total_is_exact(
    backend: str,
    side: int,
    classes: int,
    device: torch.device,
    launched: Callable[[str, str], int],
) -> None:
    total, count = (t.to(device) for t in state(classes, side, torch.float64))
    cam, class_index = maps(9, side, classes)
    arguments = (cam.to(device), class_index.to(device))
    ops.accumulate_global_cam(total, count, *arguments, backend=backend)
    sums, numbers = expected(cam, class_index, classes)
    assert [[Fraction(v) for v in row] for row in total.cpu().flatten(1).tolist()] == sums
    assert count.cpu().equal(numbers)
    for compiled in ("native", "triton"):
        assert launched("accumulate_global_cam", compiled) == (backend == compiled)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", checks.FEATURES, ids=str)
def test_float32_total(
    backend: str,
    dtype: torch.dtype,
    device: torch.device,
    within_error_budget: Callable[[Tensor, Tensor, Tensor], None],
) -> None:
    total, count = (t.to(device) for t in state(3, 40, torch.float32))
    cam, class_index = maps(8, 40, 3)
    cam = cam.to(dtype)
    arguments = (cam.to(device), class_index.to(device))
    ops.accumulate_global_cam(total, count, *arguments, backend=backend)
    plain, truth = (
        torch.zeros(3, 40, 40, dtype=d).index_add_(0, class_index, cam.to(d))
        for d in (torch.float32, torch.float64)
    )
    within_error_budget(total.cpu(), plain, truth)


@pytest.mark.parametrize("backend", BACKENDS)
def test_float64_total_is_the_same_in_any_order(backend: str, device: torch.device) -> None:
    cam, class_index = (t.to(device) for t in maps(12, 16, 3))
    results = []
    for order in (torch.arange(12), torch.randperm(12), torch.randperm(12)):
        total, count = (t.to(device) for t in state(3, 16, torch.float64))
        for part in order.split(5):
            chosen = part.to(device)
            ops.accumulate_global_cam(
                total, count, cam[chosen], class_index[chosen], backend=backend
            )
        results.append((total, count))
    for total, count in results[1:]:
        assert total.equal(results[0][0])
        assert count.equal(results[0][1])


@pytest.mark.parametrize("backend", BACKENDS)
def test_strided_arguments(backend: str, device: torch.device) -> None:
    cam, class_index = (t.to(device) for t in maps(5, 6, 3))
    total, count = (t.to(device) for t in state(3, 6, torch.float64))
    ops.accumulate_global_cam(total, count, cam, class_index, backend=backend)
    strided_total = torch.zeros(6, 6, 3, dtype=torch.float64, device=device).permute(2, 0, 1)
    strided_count = torch.zeros(6, dtype=torch.int64, device=device)[::2]
    ops.accumulate_global_cam(
        strided_total,
        strided_count,
        cam.mT.contiguous().mT,
        class_index.to(torch.uint8).repeat_interleave(2)[::2],
        backend=backend,
    )
    assert strided_total.equal(total)
    assert strided_count.equal(count)


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_maps(backend: str, device: torch.device) -> None:
    total, count = (t.to(device) for t in state(3, 6, torch.float64))
    cam = torch.zeros(0, 6, 6, device=device)
    index = torch.zeros(0, dtype=torch.int64, device=device)
    ops.accumulate_global_cam(total, count, cam, index, backend=backend)
    assert not total.any()
    assert not count.any()


@settings(max_examples=30)
@given(
    count=st.integers(0, 9),
    classes=st.integers(1, 5),
    side=st.integers(0, 70),
    total_dtype=st.sampled_from(checks.FLOATS),
    dtype=st.sampled_from(checks.FEATURES),
    seed=st.integers(0, 99),
)
def test_native_is_the_reference_to_the_last_bit(
    count: int,
    classes: int,
    side: int,
    total_dtype: torch.dtype,
    dtype: torch.dtype,
    seed: int,
    native_runs: Callable[..., AbstractContextManager[None]],
) -> None:
    torch.manual_seed(seed)
    cam, class_index = maps(count, side, classes)
    cam = cam.to(dtype)
    before = torch.rand(classes, side, side).to(total_dtype)
    native, reference = ((before.clone(), torch.arange(classes)) for _ in range(2))
    ops.accumulate_global_cam(*reference, cam, class_index, backend="reference")
    with native_runs("accumulate_global_cam", times=int(cam.numel() > 0)):
        ops.accumulate_global_cam(*native, cam, class_index, backend="native")
    assert all(map(torch.equal, native, reference))


def test_native_does_not_depend_on_the_number_of_threads(several_threads: Iterator[int]) -> None:
    cam, class_index = maps(9, 131, 3)
    results = []
    for _ in several_threads:
        results.append(state(3, 131, torch.float32))
        ops.accumulate_global_cam(*results[-1], cam, class_index, backend="native")
    assert all(all(map(torch.equal, other, results[0])) for other in results)


@pytest.mark.parametrize("value", [-1e-9, 1 + 1e-9, float("nan"), float("inf")])
@pytest.mark.parametrize("at", [0, 16384, -1])
def test_native_finds_bad_values_before_it_adds(value: float, at: int) -> None:
    total, count = state(3, 130, torch.float32)
    cam = torch.rand(3, 130, 130, dtype=torch.float64)
    cam.flatten()[at] = value
    with pytest.raises(ValueError, match="accumulate_global_cam: cam has "):
        ops.accumulate_global_cam(total, count, cam, torch.tensor([0, 1, 2]), backend="native")
    assert not total.any()
    assert not count.any()


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("total", {"total": torch.zeros(3, 6, 5)}),
        ("total", {"total": torch.zeros(3, 6, 6, dtype=torch.float16)}),
        ("count", {"count": torch.zeros(2, dtype=torch.int64)}),
        ("count", {"count": torch.zeros(3)}),
        ("cam", {"cam": torch.zeros(2, 5, 6)}),
        ("cam", {"cam": torch.full((2, 6, 6), 1.5)}),
        ("cam", {"cam": torch.full((2, 6, 6), float("nan"))}),
        ("class_index", {"class_index": torch.zeros(3, dtype=torch.int64)}),
        ("class_index", {"class_index": torch.zeros(2)}),
        ("class_index", {"class_index": torch.tensor([0, 3])}),
        ("class_index", {"class_index": torch.tensor([-1, 0])}),
    ],
)
def test_bad_arguments_are_named(name: str, change: dict[str, Tensor]) -> None:
    total, count = state(3, 6, torch.float64)
    cam, class_index = torch.rand(2, 6, 6), torch.tensor([0, 2])
    arguments = {"total": total, "count": count, "cam": cam, "class_index": class_index}
    with pytest.raises((ValueError, TypeError), match=f"accumulate_global_cam: {name} "):
        ops.accumulate_global_cam(**(arguments | change))
    assert not total.any()
    assert not count.any()


def raw(
    count: int, height: int, width: int, classes: int, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """Maps as they come, of any size and range; the third is all zero."""
    cam = (torch.randn(count, height, width).relu() * 40).to(dtype)
    cam[2:3] = 0
    return cam, torch.randint(0, classes, (count,))


def normalized_sum(
    cam: Tensor, class_index: Tensor, classes: int, side: int
) -> tuple[Tensor, Tensor]:
    """In float64, map by map: resized, divided by its maximum + 1e-5, added to its class."""
    total, count = state(classes, side, torch.float64)
    for values, z in zip(cam.double(), class_index, strict=True):
        square = functional.interpolate(values[None, None], (side, side), mode="bilinear")[0, 0]
        if square.any():
            total[z] += square / (square.max() + 1e-5)
            count[z] += 1
    return total, count


def rounding(count: int, dtype: torch.dtype) -> float:
    """Each of `count` values has some roundings of float32, or of the multiples of 2^-30."""
    return count * (2**-30 if dtype == torch.float64 else 4 * torch.finfo(torch.float32).eps)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("size", "side", "dtype"),
    [
        ((1, 1), 1, torch.float32),
        ((4, 3), 1, torch.float32),
        ((7, 3), 11, torch.float64),
        ((24, 32), 70, torch.float32),  # several tiles of the kernel
        ((24, 32), 9, torch.bfloat16),
        ((9, 9), 9, torch.float16),
    ],
)
@pytest.mark.usefixtures("nan_in_fresh_memory")
def test_raw_maps_are_resized_and_normalized(
    backend: str,
    size: tuple[int, int],
    side: int,
    dtype: torch.dtype,
    device: torch.device,
    launched: Callable[[str, str], int],
) -> None:
    cam, class_index = raw(9, *size, 4, dtype)
    total, count = (t.to(device) for t in state(4, side, torch.float64))
    strided = cam.mT.contiguous().mT.to(device)
    arguments = (total, count, strided, class_index.to(device))
    ops.accumulate_global_cam(*arguments, normalize=True, backend=backend)
    sums, numbers = normalized_sum(cam, class_index, 4, side)
    assert_close(total.cpu(), sums, rtol=0, atol=rounding(9, dtype))
    assert count.cpu().equal(numbers)
    for compiled in ("native", "triton"):
        assert launched("accumulate_global_cam", compiled) == (backend == compiled)


@settings(max_examples=30)
@given(
    count=st.integers(0, 9),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    classes=st.integers(1, 5),
    side=st.integers(1, 70),
    dtype=st.sampled_from(checks.FEATURES),
    seed=st.integers(0, 99),
)
def test_native_matches_the_sums_of_raw_maps_of_any_size(
    count: int,
    size: tuple[int, int],
    classes: int,
    side: int,
    dtype: torch.dtype,
    seed: int,
    native_runs: Callable[..., AbstractContextManager[None]],
) -> None:
    torch.manual_seed(seed)
    cam, class_index = raw(count, *size, classes, dtype)
    total, number = state(classes, side, torch.float64)
    with native_runs("accumulate_global_cam", times=int(count > 0)):
        ops.accumulate_global_cam(total, number, cam, class_index, normalize=True, backend="native")
    sums, numbers = normalized_sum(cam, class_index, classes, side)
    assert_close(total, sums, rtol=0, atol=rounding(count, dtype))
    assert number.equal(numbers)


@pytest.mark.parametrize("backend", BACKENDS)
def test_raw_maps_in_any_order_give_the_same_bits(backend: str, device: torch.device) -> None:
    cam, class_index = (t.to(device) for t in raw(12, 5, 8, 3))
    results = []
    for order in (torch.arange(12), torch.randperm(12)):
        total, count = (t.to(device) for t in state(3, 16, torch.float64))
        for part in order.to(device).split(5):
            arguments = (total, count, cam[part], class_index[part])
            ops.accumulate_global_cam(*arguments, normalize=True, backend=backend)
        results.append((total, count))
    assert results[1][0].equal(results[0][0])
    assert results[1][1].equal(results[0][1])


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_raw_maps(backend: str, device: torch.device) -> None:
    total, count = (t.to(device) for t in state(3, 6, torch.float64))
    cam, class_index = (t.to(device) for t in raw(0, 5, 8, 3))
    ops.accumulate_global_cam(total, count, cam, class_index, normalize=True, backend=backend)
    assert not total.any()
    assert not count.any()


@pytest.mark.parametrize("bad", [-1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("backend", ["reference", "native"])
def test_bad_raw_maps_are_refused(backend: str, bad: float) -> None:
    total, count = state(3, 2, torch.float64)
    cam, class_index = raw(4, 9, 9, 3)
    cam[1, 0, 0] = bad  # no pixel of the 2 x 2 map takes its value
    with pytest.raises(ValueError, match="accumulate_global_cam: cam has "):
        ops.accumulate_global_cam(total, count, cam, class_index, normalize=True, backend=backend)
    assert not total.any()
    assert not count.any()


def kernel_sums(cam: Tensor, class_index: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """What the kernel makes of values that are not checked, as those of CUDA tensors."""
    total, count = (t.to(device) for t in state(3, 6, torch.float64))
    arguments = (total, count, cam.to(device), class_index.to(device))
    kernels.accumulate_global_cam(*arguments, shift=0.0, normalize=True, eps=1e-5)
    return total.cpu(), count.cpu()


def test_triton_skips_classes_out_of_range(triton_device: torch.device) -> None:
    cam, _ = raw(6, 4, 5, 3)
    class_index = torch.tensor([0, -1, 1, 3, 2**40, 2])
    known = torch.tensor([0, 2, 5])
    total, count = kernel_sums(cam, class_index, triton_device)
    sums, numbers = kernel_sums(cam[known], class_index[known], triton_device)
    assert total.equal(sums)
    assert count.equal(numbers)


def test_triton_shows_a_nan(triton_device: torch.device) -> None:
    cam = torch.zeros(2, 6, 6)
    cam[0, 2, 3], cam[1, 0, 0] = float("nan"), 5.0
    total, count = kernel_sums(cam, torch.tensor([1, 2]), triton_device)
    assert total[1].isnan().any()
    assert not total[[0, 2]].isnan().any()
    assert count.tolist() == [0, 1, 1]


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["triton", "reference"])
def test_the_host_waits_for_nothing(backend: str) -> None:
    arguments = [t.cuda() for t in (*state(4, 12, torch.float64), *raw(6, 5, 7, 4))]
    ops.accumulate_global_cam(*arguments, normalize=True, backend=backend)  # compiles
    torch.cuda.set_sync_debug_mode("error")
    try:
        ops.accumulate_global_cam(*arguments, normalize=True, backend=backend)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
def test_opcheck(backend: str, normalize: bool, device: torch.device) -> None:
    cam, class_index = raw(4, 5, 7, 3) if normalize else maps(4, 6, 3)
    arguments = [*state(3, 6, torch.float64), cam, class_index]
    on_device = [a.to(device) for a in arguments]
    torch.library.opcheck(torch.ops.c2am.accumulate_global_cam, (*on_device, normalize, backend))


def test_compiles_to_one_graph() -> None:
    compiled = torch.compile(ops.accumulate_global_cam, fullgraph=True, backend="aot_eager")
    total, count = state(3, 6, torch.float64)
    again = (total.clone(), count.clone())
    cam, class_index = maps(4, 6, 3)
    compiled(total, count, cam, class_index)
    ops.accumulate_global_cam(*again, cam, class_index)
    assert total.equal(again[0])
    assert count.equal(again[1])
