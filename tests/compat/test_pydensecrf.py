"""c2am.compat.pydensecrf: against pydensecrf where it is installed, and against the exact sum."""

import gc
import multiprocessing
import weakref
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

import c2am.compat.pydensecrf.densecrf as ours
from c2am import ops
from c2am.compat.pydensecrf import DenseCRF, utils

HEIGHT, WIDTH, LABELS = 24, 36, 4
# Both are the same lattice in float32. Where a pixel lies on the border of two simplices, rounding
# decides which vertices exist, and a few updates amplify what that changes.
SAME_LATTICE = 2e-5
# Their spatial kernel is on a lattice, ours is exact. A lattice kernel errs by some per cent, and
# the updates amplify that where labels are about equally likely: the mean is bounded, not the
# largest difference.
OTHER_KERNEL = 0.01

Setup = Callable[[Any, ModuleType], object]
Crf = Any


def blocks(height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """An image (H, W, 3) of flat blocks with a little noise."""
    rng = np.random.default_rng(1)
    coarse = rng.integers(0, 230, (height // 6 + 1, width // 6 + 1, 3))
    image = coarse.repeat(6, 0).repeat(6, 1)[:height, :width]
    return (image + rng.integers(0, 10, image.shape)).astype(np.uint8)


def energies(labels: int = LABELS, pixels: int = HEIGHT * WIDTH) -> np.ndarray:
    return 3 * np.random.default_rng(2).random((labels, pixels), np.float32)


def matrix() -> np.ndarray:
    return np.random.default_rng(3).random((LABELS, LABELS), np.float32) - 0.5


def crf_of(module: ModuleType, setup: Setup, size: tuple[int, int] = (HEIGHT, WIDTH)) -> Crf:
    height, width = size
    crf = module.DenseCRF2D(width, height, LABELS)
    crf.setUnaryEnergy(energies(LABELS, height * width))
    setup(crf, module)
    return crf


def bilateral(compat: object, normalization: str = "NORMALIZE_SYMMETRIC", **other: Any) -> Setup:
    arguments: dict[str, Any] = {"sxy": 20, "srgb": 9, "rgbim": blocks(), "compat": compat} | other
    return lambda crf, m: crf.addPairwiseBilateral(
        **arguments, normalization=getattr(m, normalization)
    )


def gaussian(
    sxy: float | tuple, compat: object, normalization: str = "NORMALIZE_SYMMETRIC"
) -> Setup:
    return lambda crf, m: crf.addPairwiseGaussian(
        sxy=sxy, compat=compat, normalization=getattr(m, normalization)
    )


def features(dimensions: int, compat: object = 3.0) -> Setup:
    rng = np.random.default_rng(4)
    coarse = rng.random((dimensions, HEIGHT, WIDTH // 6), np.float32).repeat(6, 2)
    return lambda crf, m: crf.addPairwiseEnergy(
        np.ascontiguousarray(coarse.reshape(dimensions, -1)), compat, kernel=m.FULL_KERNEL
    )


ON_THEIR_LATTICE = {
    "potts": bilateral(10),
    "numpy number": bilateral(np.float32(10)),
    "vector": bilateral(-np.arange(1, LABELS + 1, dtype=np.float32)),
    "matrix": bilateral(matrix()),
    "tuples": bilateral(4, sxy=(20, 11), srgb=(9, 8.5, 7)),
    "before": bilateral(4.5, "NORMALIZE_BEFORE"),
    "after": bilateral(4.5, "NORMALIZE_AFTER"),
    "none": bilateral(0.02, "NO_NORMALIZATION"),
    "gaussian none": gaussian((3, 2), 0.05, "NO_NORMALIZATION"),
    "two": lambda crf, m: (bilateral(3)(crf, m), bilateral(5, sxy=8)(crf, m)),
    "features 1": features(1),
    "features 2": features(2),
    "features 4": features(4, matrix()),
    "features 10": features(10),
    "features 17": features(17),
    "negative compat": features(3, -1.0),
    "nothing": lambda crf, m: None,
}
EXACT_HERE = {
    "gaussian": gaussian(3, 3),
    "gaussian tuple": gaussian((3, 1.5), 3),
    "gaussian matrix": gaussian(2, matrix()),
    "gaussian before": gaussian(3, 3, "NORMALIZE_BEFORE"),
    "gaussian after": gaussian(3, 3, "NORMALIZE_AFTER"),
    "usual": lambda crf, m: (gaussian(3, 3)(crf, m), bilateral(10)(crf, m)),
}


def cases(*groups: dict[str, Setup]) -> pytest.MarkDecorator:
    every = {name: setup for group in groups for name, setup in group.items()}
    return pytest.mark.parametrize("setup", every.values(), ids=every)


@cases(ON_THEIR_LATTICE)
def test_inference_is_that_of_pydensecrf(setup: Setup, theirs: ModuleType) -> None:
    expected = np.array(crf_of(theirs, setup).inference(5))
    result = np.array(crf_of(ours, setup).inference(5))
    assert result.shape == expected.shape == (LABELS, HEIGHT * WIDTH)
    assert result.dtype == expected.dtype == np.float32
    assert_allclose(result, expected, rtol=0, atol=SAME_LATTICE)


@cases(EXACT_HERE)
def test_inference_with_a_spatial_kernel_is_near_that_of_pydensecrf(
    setup: Setup, theirs: ModuleType
) -> None:
    expected = np.array(crf_of(theirs, setup).inference(5))
    result = crf_of(ours, setup).inference(5)
    assert np.abs(result - expected).mean() < OTHER_KERNEL
    assert (result.argmax(0) == expected.argmax(0)).mean() > 0.98


def test_the_usual_script_is_no_further_from_the_exact_result(theirs: ModuleType) -> None:
    image, unary = torch.from_numpy(blocks()), torch.from_numpy(energies())
    truth = ops.dense_crf(
        image,
        unary.view(LABELS, HEIGHT, WIDTH).double(),
        bilateral_sxy=20,
        bilateral_srgb=9,
        method="exact",
    )
    errors = []
    for module in (ours, theirs):
        result = np.array(crf_of(module, EXACT_HERE["usual"]).inference(10))
        errors.append(np.abs(result - truth.flatten(1).numpy()).mean())
    assert errors[0] <= errors[1] + 5e-4


def exact(normalization: str, sxy: tuple[float, float], compat: float) -> np.ndarray:
    """Mean field of 5 updates with the spatial kernel as an N x N matrix, in float64."""
    y, x = np.mgrid[:HEIGHT, :WIDTH].reshape(2, -1).astype(float)
    distance = ((x[:, None] - x) / sxy[0]) ** 2 + ((y[:, None] - y) / sxy[1]) ** 2
    kernel = np.exp(-distance / 2)
    sums = kernel.sum(1)
    powers = {"BEFORE": (0, 1), "AFTER": (1, 0), "SYMMETRIC": (0.5, 0.5)}
    after, before = powers[normalization.removeprefix("NORMALIZE_")]
    kernel = kernel / sums[:, None] ** after / sums**before
    energy = torch.from_numpy(energies()).double()
    q = torch.softmax(-energy, 0)
    for _ in range(5):
        q = torch.softmax(compat * (q @ torch.from_numpy(kernel).T) - energy, 0)
    return q.numpy()


@pytest.mark.parametrize("sxy", [(3.0, 3.0), (3.0, 1.5), (0.1, 40.0)], ids=str)
@pytest.mark.parametrize(
    "normalization", ["NORMALIZE_BEFORE", "NORMALIZE_AFTER", "NORMALIZE_SYMMETRIC"]
)
def test_a_normalised_spatial_kernel_is_exact(sxy: tuple[float, float], normalization: str) -> None:
    result = crf_of(ours, gaussian(sxy, 3, normalization)).inference(5)
    assert_allclose(result, exact(normalization, sxy, 3), rtol=0, atol=1e-5)


@cases(ON_THEIR_LATTICE, EXACT_HERE)
def test_step_by_step(setup: Setup) -> None:
    crf = crf_of(ours, setup)
    q, tmp1, tmp2 = crf.startInference()
    assert_allclose(q, crf.inference(0), rtol=0, atol=1e-6)
    divergence = [crf.klDivergence(q)]
    for _ in range(3):
        crf.stepInference(q, tmp1, tmp2)
        divergence.append(crf.klDivergence(q))
    # inference leaves the usual pair of kernels to DenseCrfPlan, which rounds otherwise.
    assert_allclose(q, crf.inference(3), rtol=0, atol=2e-4)
    assert_allclose(q.sum(0), 1, rtol=1e-5)
    assert divergence[0] == pytest.approx(crf.klDivergence(crf.inference(0)))


@cases(ON_THEIR_LATTICE)
def test_steps_and_divergence_are_those_of_pydensecrf(setup: Setup, theirs: ModuleType) -> None:
    one, other = crf_of(ours, setup), crf_of(theirs, setup)
    q, *rest = one.startInference()
    their_q, *their_rest = other.startInference()
    for _ in range(3):
        assert_allclose(q, np.array(their_q), rtol=0, atol=SAME_LATTICE)
        # Theirs adds float32 values one after the other.
        assert one.klDivergence(q) == pytest.approx(other.klDivergence(their_q), rel=1e-4)
        one.stepInference(q, *rest)
        other.stepInference(their_q, *their_rest)


@pytest.mark.parametrize("size", [(1, 1), (7, 3), (1, 20), (20, 1), (63, 100)], ids=str)
def test_sizes(size: tuple[int, int]) -> None:
    image = torch.from_numpy(blocks(*size))
    crf = crf_of(ours, gaussian(3, 3), size)
    crf.addPairwiseBilateral(50, 5, image.numpy(), 10)
    unary = torch.from_numpy(energies(LABELS, size[0] * size[1])).view(LABELS, *size)
    expected = ops.dense_crf(image, unary.double(), iterations=4, backend="reference")
    assert_allclose(crf.inference(4), expected.flatten(1), rtol=0, atol=2e-4)
    q, *rest = crf.startInference()
    for _ in range(4):
        crf.stepInference(q, *rest)
    assert_allclose(q, expected.flatten(1), rtol=0, atol=2e-4)


def test_any_arrangement_of_pixels(theirs: ModuleType) -> None:
    results = []
    for module in (theirs, ours):
        crf = module.DenseCRF(HEIGHT * WIDTH, LABELS)
        crf.setUnaryEnergy(energies())
        features(3)(crf, module)
        results.append(np.array(crf.inference(3)))
    assert_allclose(*results, rtol=0, atol=SAME_LATTICE)


@pytest.mark.parametrize(
    ("of_place", "of_colour"),
    [
        (3, 10),
        (-3 * np.eye(LABELS, dtype=np.float32), 10 - 10 * np.eye(LABELS, dtype=np.float32)),
        (np.full(LABELS, -3, np.float32), np.full(LABELS, -10, np.float32)),
    ],
    ids=["number", "matrix", "vector"],
)
def test_the_usual_script_runs_on_a_plan_that_is_kept(of_place: Any, of_colour: Any) -> None:
    before = ops.launches["dense_crf", "native"]
    crf = crf_of(ours, gaussian(3, of_place))
    bilateral(of_colour)(crf, ours)
    first = crf.inference(3)
    plan = crf._plan
    assert plan is not None
    crf.setUnaryEnergy(energies()[::-1].copy())
    assert_allclose(crf.inference(3), first[::-1], rtol=0, atol=1e-5)
    assert crf._plan is plan
    assert ops.launches["dense_crf", "native"] - before == 2
    crf.addPairwiseGaussian(2, 1)
    assert np.abs(crf.inference(3) - first[::-1]).max() > 1e-3
    assert crf._plan is None


@pytest.mark.parametrize(("dimensions", "compiled"), [(1, 1), (16, 1), (17, 0)])
def test_up_to_sixteen_features_are_filtered_by_the_compiled_core(
    dimensions: int, compiled: int
) -> None:
    before = ops.launches["mean_field", "native"]
    crf = crf_of(ours, features(dimensions))
    crf.klDivergence(crf.inference(3))
    assert ops.launches["mean_field", "native"] - before == 2 * compiled


@pytest.mark.parametrize(
    "setup",
    [features(4, matrix()), gaussian((3, 1.5), 3, "NORMALIZE_BEFORE"), bilateral(3)],
    ids=["features", "spatial", "bilateral"],
)
def test_plain_pytorch_gives_the_same(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for backend in ("native", "reference"):
        monkeypatch.setattr("c2am.ops.backend_of", lambda op, device, name=backend: name)
        crf = crf_of(ours, setup)
        q, *rest = crf.startInference()
        crf.stepInference(q, *rest)
        results.append((DenseCRF.inference(crf, 3), q, crf.klDivergence(q)))
    for one, other in zip(*results, strict=True):
        assert_allclose(one, other, rtol=1e-5, atol=SAME_LATTICE)


def test_steps_from_any_marginals(theirs: ModuleType) -> None:
    """They need not sum to 1."""
    one, other = crf_of(ours, features(4, matrix())), crf_of(theirs, features(4, matrix()))
    q, *rest = one.startInference()
    their_q, *their_rest = other.startInference()
    for values in (q, np.asarray(their_q)):
        values[:, ::3] *= 0.5
        values[0] += 0.1
    one.stepInference(q, *rest)
    other.stepInference(their_q, *their_rest)
    assert_allclose(q, np.array(their_q), rtol=0, atol=SAME_LATTICE)


@pytest.mark.parametrize("threads", [2, 3])
def test_the_number_of_threads_changes_nothing(threads: int) -> None:
    before = torch.get_num_threads()
    results = []
    try:
        for count in (1, threads):
            torch.set_num_threads(count)
            results.append(crf_of(ours, ON_THEIR_LATTICE["matrix"]).inference(3))
    finally:
        torch.set_num_threads(before)
    # torch's own products may be split otherwise.
    assert_allclose(*results, rtol=0, atol=1e-6)


@pytest.mark.parametrize("mixed", [False, True], ids=["potts", "matrix"])
@pytest.mark.parametrize("labels", [1, 2, 70, 300])
def test_few_and_many_labels(labels: int, mixed: bool, theirs: ModuleType) -> None:
    results = []
    compat: Any = 10
    if mixed:
        compat = np.random.default_rng(5).random((labels, labels), np.float32) - 0.5
    for module in (theirs, ours):
        crf = module.DenseCRF2D(WIDTH, HEIGHT, labels)
        crf.setUnaryEnergy(energies(labels))
        crf.addPairwiseBilateral(20, 9, blocks(), compat)
        results.append(np.array(crf.inference(2)))
    assert_allclose(*results, rtol=0, atol=SAME_LATTICE)


@pytest.mark.parametrize("spatial", ["exact", "lattice"])
@pytest.mark.parametrize(
    ("labels", "kernels", "mean_difference"),
    [(3, (3, 3, 50, 5, 10), 5e-4), (21, (1, 3, 67, 3, 4), 1e-4)],
)
def test_photographs(
    labels: int,
    kernels: tuple[int, ...],
    mean_difference: float,
    spatial: str,
    voc_root: Path,
    theirs: ModuleType,
    their_utils: ModuleType,
) -> None:
    """Masks given in blocks of 16 x 16 pixels."""
    spatial_sxy, spatial_compat, sxy, srgb, compat = kernels
    for path in sorted((voc_root / "SegmentationClass").glob("*.png"))[:4]:
        image = np.array(Image.open(voc_root / "JPEGImages" / f"{path.stem}.jpg"))
        height, width, _ = image.shape
        mask = np.array(Image.open(path))[::16, ::16].repeat(16, 0).repeat(16, 1)[:height, :width]
        mask = np.where(mask == 255, 0, mask)
        if labels == 3:
            mask = np.where(mask == 0, 0, 1 + mask % 2)
        results = []
        for module, helpers in ((theirs, their_utils), (ours, utils)):
            crf = module.DenseCRF2D(width, height, labels)
            crf.setUnaryEnergy(helpers.unary_from_labels(mask, labels, 0.7, zero_unsure=False))
            if spatial == "exact":
                crf.addPairwiseGaussian(sxy=spatial_sxy, compat=spatial_compat)
            else:
                features = helpers.create_pairwise_gaussian((spatial_sxy,) * 2, (height, width))
                crf.addPairwiseEnergy(features, spatial_compat)
            crf.addPairwiseBilateral(sxy=sxy, srgb=srgb, rgbim=image, compat=compat)
            results.append(np.array(crf.inference(10)))
        agree = (results[0].argmax(0) == results[1].argmax(0)).mean()
        difference = np.abs(results[0] - results[1]).mean()
        if spatial == "exact":  # where their lattice is not
            assert agree >= 0.999
            assert difference <= mean_difference
        else:
            assert agree >= 0.99999
            assert difference <= 1e-6


@pytest.mark.parametrize("compat", [10, -10 * matrix() @ matrix().T], ids=["plan", "matrix"])
@pytest.mark.parametrize("label", [1, LABELS - 1])
@pytest.mark.parametrize("energy", [np.inf, 1e5])
def test_a_large_energy_rules_a_label_out(
    energy: float, label: int, compat: Any, theirs: ModuleType
) -> None:
    unary = energies()
    unary[label, ::2] = energy
    results = []
    for module in (theirs, ours):
        crf = module.DenseCRF2D(WIDTH, HEIGHT, LABELS)
        crf.setUnaryEnergy(unary)
        crf.addPairwiseBilateral(20, 9, blocks(), compat)
        results.append(np.array(crf.inference(3)))
    assert (results[1][label, ::2] < 1e-37).all()  # float32's least: exp(-87), over the sum
    # Differences from an energy of 1000 have an error of 6e-5.
    assert_allclose(*results, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", ["ConstUnary", "LogisticUnary"])
def test_unary_objects(kind: str, theirs: ModuleType) -> None:
    arguments = [energies()] if kind == "ConstUnary" else [matrix(), energies()]
    results = []
    for module in (theirs, ours):
        crf = module.DenseCRF2D(WIDTH, HEIGHT, LABELS)
        crf.setUnary(getattr(module, kind)(*arguments))
        results.append(np.array(crf.inference(0)))
    assert_allclose(*results, rtol=0, atol=1e-6)


def test_features_of_logistic_energies_may_be_fewer_than_labels() -> None:
    crf = ours.DenseCRF(50, LABELS)
    weights, values = matrix()[:, :2].copy(), energies(2, 50)
    crf.setUnaryEnergy(weights, values)
    expected = torch.softmax(-torch.from_numpy(weights @ values), 0)
    assert_allclose(crf.inference(0), expected, rtol=0, atol=1e-6)


def test_without_unaries(theirs: ModuleType) -> None:
    crf = ours.DenseCRF2D(WIDTH, HEIGHT, LABELS)
    other = theirs.DenseCRF2D(WIDTH, HEIGHT, LABELS)
    assert_array_equal(crf.inference(2), np.array(other.inference(2)))
    assert_array_equal(crf.startInference()[0], np.array(other.startInference()[0]))


def test_what_is_passed_is_copied() -> None:
    unary, image = energies(), blocks()
    crf = ours.DenseCRF2D(WIDTH, HEIGHT, LABELS)
    crf.setUnaryEnergy(unary)
    crf.addPairwiseBilateral(20, 9, image, 10)
    unary[:], image[:] = 0, 0
    assert_array_equal(crf.inference(2), crf_of(ours, bilateral(10)).inference(2))


@pytest.mark.parametrize(("sxy", "normalization"), [(3, ours.NORMALIZE_SYMMETRIC), ((3, 2), 0)])
def test_a_crf_is_freed_with_its_last_reference(sxy: Any, normalization: int) -> None:
    crf = ours.DenseCRF2D(WIDTH, HEIGHT, LABELS)
    crf.setUnaryEnergy(energies())
    crf.addPairwiseGaussian(sxy, 3, normalization=normalization)
    crf.addPairwiseBilateral(20, 9, blocks(), 10)
    crf.inference(1)
    alive = weakref.ref(crf)
    gc.disable()  # it would free a cycle too, some time
    try:
        del crf
        assert alive() is None
    finally:
        gc.enable()


def test_constants(theirs: ModuleType) -> None:
    for name in ("CONST_KERNEL", "DIAG_KERNEL", "FULL_KERNEL", "NO_NORMALIZATION"):
        assert getattr(ours, name) == getattr(theirs, name)
    for name in ("NORMALIZE_BEFORE", "NORMALIZE_AFTER", "NORMALIZE_SYMMETRIC"):
        assert getattr(ours, name) == getattr(theirs, name)


def test_imports_are_one_word_away() -> None:
    import c2am.compat.pydensecrf as package

    assert package.DenseCRF2D is ours.DenseCRF2D
    assert package.utils is utils


def _sum_in_child(setup_name: str) -> float:
    return float(crf_of(ours, (ON_THEIR_LATTICE | EXACT_HERE)[setup_name]).inference(2).sum())


def test_in_forked_processes() -> None:
    """A pool of processes, as scripts have; the parent has used OpenMP's threads before."""
    names = ["usual", "matrix"]
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        expected = [_sum_in_child(name) for name in names]
        with multiprocessing.get_context("fork").Pool(1) as pool:
            results = pool.map_async(_sum_in_child, names).get(timeout=200)
    finally:
        torch.set_num_threads(before)
    assert results == pytest.approx(expected)
