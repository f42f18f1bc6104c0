"""dense_crf: native against reference, lattice against the exact sum, and what must hold anyway."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from c2am import ops

SIZES = [(1, 1), (7, 3), (1, 20), (20, 1), (63, 100)]
# Native computes in float32; mean-field updates amplify its rounding.
TOLERANCE = {torch.float32: 2e-4, torch.float64: 1e-9}


def blocks(height: int, width: int, side: int = 6) -> Tensor:
    """An image (H, W, 3) of flat blocks with a little noise."""
    coarse = torch.rand(height // side + 1, width // side + 1, 3)
    image = coarse.repeat_interleave(side, 0).repeat_interleave(side, 1)[:height, :width]
    return (image * 230 + 10 * torch.rand(height, width, 3)).to(torch.uint8)


def energies(classes: int, height: int, width: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return 3 * torch.rand(classes, height, width, dtype=dtype)


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """Sets the number of threads, which is restored afterwards."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def brute_force(image: Tensor, unary: Tensor, iterations: int) -> Tensor:
    """Mean field of the defaults, pair by pair, from N x N matrices in NumPy's float64."""
    height, width, _ = image.shape
    y, x = np.mgrid[:height, :width].reshape(2, -1).astype(float)
    place = (y[:, None] - y) ** 2 + (x[:, None] - x) ** 2
    rgb = image.numpy().reshape(-1, 3).astype(float)
    colour = ((rgb[:, None] - rgb) ** 2).sum(-1)
    total = np.zeros_like(place)
    for compat, kernel in (
        (3, np.exp(-place / (2 * 3.0**2))),
        (10, np.exp(-place / (2 * 50.0**2) - colour / (2 * 5.0**2))),
    ):
        norm = 1 / np.sqrt(kernel.sum(1) + 1e-20)
        total += compat * norm[:, None] * kernel * norm
    energy = unary.numpy().reshape(len(unary), -1)

    def softmax(logits: np.ndarray) -> np.ndarray:
        e = np.exp(logits - logits.max(0))
        return e / e.sum(0)

    q = softmax(-energy)
    for _ in range(iterations):
        q = softmax(q @ total - energy)
    return torch.from_numpy(q).view_as(unary)


@pytest.mark.parametrize("size", [(1, 1), (7, 3), (12, 17)], ids=str)
def test_exact_is_the_sum_over_all_pairs(size: tuple[int, int]) -> None:
    image, unary = blocks(*size), energies(3, *size, torch.float64)
    result = ops.dense_crf(image, unary, method="exact", backend="reference")
    assert_close(result, brute_force(image, unary, 10), rtol=0, atol=1e-9)


def test_exact_in_several_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    image, unary = blocks(9, 8), energies(2, 9, 8, torch.float64)
    whole = ops.dense_crf(image, unary, method="exact", backend="reference")
    monkeypatch.setattr("c2am.ops.dense_crf_reference._BLOCK", 72 * 5)
    split = ops.dense_crf(image, unary, method="exact", backend="reference")
    assert_close(split, whole)


@pytest.mark.parametrize("classes", [1, 2, 3, 4, 21, 128])
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.usefixtures("nan_in_fresh_memory")
def test_native_matches_reference(
    size: tuple[int, int], classes: int, launched: Callable[[str, str], int]
) -> None:
    image, unary = blocks(*size), energies(classes, *size)
    result = ops.dense_crf(image, unary, backend="native")
    assert launched("dense_crf", "native") == 1
    expected = ops.dense_crf(image, unary.double(), backend="reference")
    assert launched("dense_crf", "native") == 1
    assert_close(result.double(), expected, rtol=0, atol=TOLERANCE[torch.float32])


@pytest.mark.parametrize("classes", [1, 2, 21, 40])
@pytest.mark.parametrize("size", [(1, 1), (7, 3), (1, 20), (31, 43)], ids=str)
@pytest.mark.usefixtures("nan_in_fresh_memory")
def test_native_exact_matches_reference(size: tuple[int, int], classes: int) -> None:
    image, unary = blocks(*size), energies(classes, *size)
    result = ops.dense_crf(image, unary, method="exact", backend="native")
    expected = ops.dense_crf(image, unary.double(), method="exact", backend="reference")
    assert_close(result.double(), expected, rtol=0, atol=TOLERANCE[torch.float32])


@pytest.mark.parametrize(
    "kernels",
    [
        {"gaussian_sxy": 1.0, "bilateral_sxy": 67.0, "bilateral_srgb": 3.0},
        {"gaussian_sxy": 40.0, "gaussian_compat": 0.0},
        {"bilateral_srgb": 0.02, "bilateral_sxy": 0.5},  # keys of more than 64 bits
        {"bilateral_compat": 0.0},
        {"gaussian_sxy": 0.05, "bilateral_compat": -2.0},
    ],
    ids=str,
)
def test_native_matches_reference_for_other_kernels(kernels: dict[str, float]) -> None:
    image, unary = blocks(23, 31), energies(3, 23, 31)
    result = ops.dense_crf(image, unary, backend="native", iterations=5, **kernels)
    expected = ops.dense_crf(image, unary.double(), backend="reference", iterations=5, **kernels)
    assert_close(result.double(), expected, rtol=0, atol=TOLERANCE[torch.float32])


def test_the_lattice_approximates_the_exact_kernel() -> None:
    image = blocks(40, 50, side=10)
    labels = (image.sum(-1) > 360).long()
    unary = ops.unary_from_labels(labels ^ (torch.rand(40, 50) < 0.2).long(), 2, 0.7)
    lattice = ops.dense_crf(image, unary)
    exact = ops.dense_crf(image, unary, method="exact")
    assert (lattice - exact).abs().mean() < 0.01
    noisy = (unary.argmin(0) == labels).float().mean()
    assert (lattice.argmax(0) == labels).float().mean() > noisy + 0.1


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_no_iterations_give_the_softmax(backend: str) -> None:
    image, unary = blocks(7, 9), 30 * energies(5, 7, 9)
    result = ops.dense_crf(image, unary, iterations=0, backend=backend)
    assert_close(result, torch.softmax(-unary, 0))


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_constant_unaries_stay_uniform(backend: str) -> None:
    """For a few iterations: they are a saddle point, from which rounding leads away."""
    image, unary = blocks(9, 8), torch.full((4, 9, 8), 1.7)
    result = ops.dense_crf(image, unary, iterations=2, backend=backend)
    assert_close(result, torch.full_like(unary, 0.25))


@pytest.mark.parametrize("label", range(3))
def test_a_label_ruled_out_by_a_large_energy_leaves_the_others_alone(label: int) -> None:
    image, unary = blocks(9, 8), energies(3, 9, 8)
    unary[label, 2:5] = 1e8
    result = ops.dense_crf(image, unary, iterations=3, backend="native")
    assert_close(result, ops.dense_crf(image, unary, iterations=3, backend="reference"))
    assert (result[label, 2:5] < 1e-30).all()


@settings(max_examples=15)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 10), st.integers(0, 99))
def test_marginals_sum_to_one_and_follow_a_permutation_of_the_classes(
    height: int, width: int, classes: int, seed: int
) -> None:
    torch.manual_seed(seed)
    image, unary = blocks(height, width), energies(classes, height, width)
    order = torch.randperm(classes)
    result = ops.dense_crf(image, unary, iterations=3)
    assert_close(result.sum(0), torch.ones(height, width))
    assert_close(ops.dense_crf(image, unary[order], iterations=3), result[order])


@settings(max_examples=25, deadline=None)
@given(
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    classes=st.integers(1, 6),
    deviations=st.tuples(st.floats(0.5, 30), st.floats(0.5, 200), st.floats(0.5, 300)),
    compat=st.tuples(st.floats(-2, 10), st.floats(-2, 10)),
)
def test_any_kernels(
    size: tuple[int, int],
    classes: int,
    deviations: tuple[float, float, float],
    compat: tuple[float, float],
) -> None:
    """Deviations are no round numbers: with these a pixel is on the border of two simplices, where
    rounding decides which vertices there are.
    """
    torch.manual_seed(sum(size))
    image, unary = blocks(*size), energies(classes, *size)
    names = "gaussian_sxy", "bilateral_sxy", "bilateral_srgb", "gaussian_compat", "bilateral_compat"
    kernels: dict[str, Any] = dict(
        zip(names, (*(math.pi / 3 * d for d in deviations), *compat), strict=True)
    )
    result = ops.dense_crf(image, unary, iterations=2, backend="native", **kernels)
    expected = ops.dense_crf(image, unary.double(), iterations=2, backend="reference", **kernels)
    assert_close(result.double(), expected, rtol=0, atol=2e-4)


def test_mirrored_in_x_and_y() -> None:
    """The exact kernel knows no direction; the native spatial filter must not either."""
    image, unary = blocks(15, 22), energies(3, 15, 22)
    kernels: dict[str, Any] = {"bilateral_compat": 0.0, "backend": "native"}
    result = ops.dense_crf(image, unary, **kernels)
    turned = ops.dense_crf(image.flip(0, 1), unary.flip(1, 2), **kernels)
    assert_close(turned.flip(1, 2), result)
    across = ops.dense_crf(image.transpose(0, 1), unary.transpose(1, 2), **kernels)
    assert_close(across.transpose(1, 2), result)


@pytest.mark.parametrize("classes", [3, 9])
def test_the_number_of_threads_changes_nothing(
    classes: int, threads: Callable[[int], None]
) -> None:
    image, unary = blocks(50, 61), energies(classes, 50, 61)
    threads(1)
    expected = ops.dense_crf(image, unary, backend="native")
    for count in (2, 3, 5):
        threads(count)
        assert ops.dense_crf(image, unary, backend="native").equal(expected)


def test_threads_that_meet_lose_no_vertex(threads: Callable[[int], None]) -> None:
    """All threads insert the same vertices: on two cores some are lost in the first pass."""
    noise = torch.randint(256, (300, 300, 3), dtype=torch.uint8)
    unary = energies(3, 300, 300)
    wide: dict[str, Any] = {"bilateral_sxy": 1e4, "bilateral_srgb": 30.0, "iterations": 1}
    threads(1)
    expected = ops.dense_crf(noise, unary, **wide, backend="native")
    for count in 40 * (2, 3, 8):
        threads(count)
        assert ops.dense_crf(noise, unary, **wide, backend="native").equal(expected)


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_a_plan_serves_several_unaries(backend: str) -> None:
    image = blocks(13, 17)
    plan = ops.DenseCrfPlan(image, bilateral_sxy=20.0, backend=backend)
    for classes in (2, 6):
        unary = energies(classes, 13, 17)
        expected = ops.dense_crf(image, unary, bilateral_sxy=20.0, iterations=4, backend=backend)
        assert plan(unary, iterations=4).equal(expected)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("backend", ["native", "reference"])
def test_dtype_and_strides(backend: str, dtype: torch.dtype) -> None:
    image, unary = blocks(13, 17), energies(3, 13, 17, dtype)
    expected = ops.dense_crf(image, unary, backend=backend)
    assert expected.dtype == dtype
    channels_last = unary.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    planes = image.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    result = ops.dense_crf(planes, channels_last, backend=backend)
    assert result.is_contiguous()
    assert_close(result, expected)


@pytest.mark.parametrize("batch", [0, 1, 3])
def test_batch(batch: int) -> None:
    images = torch.zeros(batch, 8, 11, 3, dtype=torch.uint8)
    for b in range(batch):
        images[b] = blocks(8, 11)
    unary = 3 * torch.rand(batch, 4, 8, 11)
    result = ops.dense_crf(images, unary)
    assert result.shape == unary.shape
    for b in range(batch):
        assert result[b].equal(ops.dense_crf(images[b], unary[b]))


IMAGE = torch.zeros(4, 5, 3, dtype=torch.uint8)
UNARY = torch.zeros(2, 4, 5)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("image", {"image": torch.zeros(4, 5, 3)}),
        ("image", {"image": IMAGE[..., 0]}),
        ("image", {"image": IMAGE[:0], "unary": UNARY[:, :0]}),
        ("unary", {"unary": UNARY.int()}),
        ("unary", {"unary": UNARY[:, :3]}),
        ("unary", {"unary": UNARY[:0]}),
        ("unary", {"unary": UNARY.new_zeros(256, 4, 5)}),
        ("unary", {"unary": UNARY.new_full((2, 4, 5), float("nan"))}),
        ("unary", {"unary": UNARY.new_full((2, 4, 5), float("inf"))}),
        ("unary", {"unary": UNARY.clone().requires_grad_()}),
        ("iterations", {"iterations": -1}),
        ("iterations", {"iterations": 2.5}),
        ("iterations", {"iterations": None}),
        ("gaussian_sxy", {"gaussian_sxy": (3, 3)}),
        ("gaussian_sxy", {"gaussian_sxy": "3"}),
        ("bilateral_compat", {"bilateral_compat": np.ones(2)}),
        ("gaussian_sxy", {"gaussian_sxy": 0.0}),
        ("bilateral_sxy", {"bilateral_sxy": -1.0}),
        ("bilateral_srgb", {"bilateral_srgb": float("nan")}),
        ("bilateral_compat", {"bilateral_compat": float("inf")}),
        ("method", {"method": "magic"}),
        ("precision", {"precision": "double"}),
        ("output", {"output": "mask"}),
        ("backend", {"backend": "magic"}),
    ],
)
def test_bad_arguments_are_named(name: str, arguments: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError), match=f"dense_crf: {name} "):
        ops.dense_crf(**({"image": IMAGE, "unary": UNARY} | arguments))


def test_features_too_fine_for_the_lattice_are_an_error() -> None:
    with pytest.raises(ValueError, match="too small"):
        ops.dense_crf(IMAGE, UNARY, bilateral_srgb=1e-14, backend="native")


def test_a_backend_that_is_missing_is_an_error() -> None:
    with pytest.raises(ops.BackendError, match="dense_crf"):
        ops.dense_crf(IMAGE, UNARY, backend="triton")


def test_a_plan_checks_its_unaries() -> None:
    plan = ops.DenseCrfPlan(IMAGE)
    with pytest.raises(ValueError, match="unary has NaN"):
        plan(UNARY * float("nan"))
    with pytest.raises(ValueError, match="unary has shape"):
        plan(UNARY[:, 1:])


@pytest.mark.parametrize(
    ("method", "output", "backend"),
    [
        ("lattice", "marginals", "native"),
        ("lattice", "labels", "reference"),
        ("exact", "labels", "native"),
    ],
)
def test_opcheck(method: str, output: str, backend: str) -> None:
    kernels = [3.0, 3.0, 50.0, 5.0, 10.0]
    image, unary = blocks(7, 3)[None], energies(3, 7, 3)[None]
    arguments = (image, unary, 2, kernels, method, "single", output, backend)
    torch.library.opcheck(torch.ops.c2am.dense_crf.default, arguments)


def test_a_compiled_graph_is_not_broken() -> None:
    compiled = torch.compile(ops.dense_crf, fullgraph=True, backend="aot_eager")
    image, unary = blocks(7, 3), energies(3, 7, 3)
    assert_close(compiled(image, unary), ops.dense_crf(image, unary))


def test_bilateral_kernel_is_that_of_pydensecrf() -> None:
    """Its spatial kernel is on a lattice as well, where ours is exact, and is left out here."""
    densecrf = pytest.importorskip("pydensecrf.densecrf")
    image, unary = blocks(40, 50), energies(3, 40, 50)
    theirs = densecrf.DenseCRF2D(50, 40, 3)
    theirs.setUnaryEnergy(unary.flatten(1).numpy())
    theirs.addPairwiseBilateral(sxy=50, srgb=5, rgbim=image.numpy(), compat=10)
    expected = torch.tensor(np.array(theirs.inference(10))).view_as(unary)
    result = ops.dense_crf(image, unary, gaussian_compat=0.0)
    assert_close(result, expected, rtol=0, atol=2e-3)


@pytest.mark.gpu
def test_the_reference_on_a_gpu() -> None:
    image, unary = blocks(23, 31), energies(3, 23, 31, torch.float64)
    result = ops.dense_crf(image.cuda(), unary.cuda(), backend="reference")
    expected = ops.dense_crf(image, unary, backend="reference")
    assert_close(result.cpu(), expected, rtol=0, atol=TOLERANCE[torch.float64])
