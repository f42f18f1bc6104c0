"""dense_crf on a GPU: the compiled kernels against the CPU's core and the plain reference."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from c2am import ops
from c2am.ops.dense_crf_cuda import CudaCrf
from c2am.ops.dense_crf_reference import Kernels

pytestmark = pytest.mark.gpu

TOLERANCE = 2e-4  # of float32, whose rounding mean-field updates amplify


def photo(height: int, width: int, images: int = 1) -> Tensor:
    """Images (B, H, W, 3) of smooth colours with noise."""
    coarse = torch.rand(images, 3, 4, 5) * 200
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")
    noisy = smooth.permute(0, 2, 3, 1) + 20 * torch.rand(images, height, width, 3)
    return noisy.clamp(0, 255).to(torch.uint8)


def energies(classes: int, height: int, width: int, images: int = 1) -> Tensor:
    return 3 * torch.rand(images, classes, height, width)


@pytest.mark.parametrize("classes", [1, 2, 3, 4, 5, 9, 17, 21, 33, 65, 128, 129, 255])
@pytest.mark.parametrize("size", [(1, 1), (7, 3), (1, 20), (20, 1), (63, 100)], ids=str)
@pytest.mark.usefixtures("nan_in_fresh_memory")
def test_native_matches_reference(
    size: tuple[int, int], classes: int, launched: Callable[[str, str], int]
) -> None:
    image, unary = photo(*size)[0], energies(classes, *size)[0]
    result = ops.dense_crf(image.cuda(), unary.cuda(), backend="native")
    assert launched("dense_crf", "native") == 1
    expected = ops.dense_crf(image, unary.double(), backend="reference")
    assert_close(result.cpu().double(), expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(
    "kernels",
    [
        {"gaussian_sxy": 1.0, "bilateral_sxy": 67.0, "bilateral_srgb": 3.0},
        {"gaussian_sxy": 40.0, "gaussian_compat": 0.0},
        {"gaussian_sxy": 1e30, "bilateral_compat": 0.0},
        {"gaussian_sxy": 0.05, "bilateral_compat": -2.0},
        {"bilateral_sxy": 0.7, "bilateral_srgb": 0.9},
    ],
    ids=str,
)
def test_other_kernels(kernels: dict[str, float]) -> None:
    image, unary = photo(23, 31)[0], energies(3, 23, 31)[0]
    options: dict[str, Any] = {"iterations": 5, **kernels}
    result = ops.dense_crf(image.cuda(), unary.cuda(), backend="native", **options)
    expected = ops.dense_crf(image, unary.double(), backend="reference", **options)
    assert_close(result.cpu().double(), expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("kind", ["constant", "noise"])
@pytest.mark.parametrize("size", [(375, 500), (1, 4096)], ids=str)
def test_images_without_structure(kind: str, size: tuple[int, int]) -> None:
    """One vertex holds thousands of points; as many vertices as there can be."""
    image = torch.randint(0, 256, (*size, 3), dtype=torch.uint8)
    if kind == "constant":
        image[:] = 100
    unary = energies(3, *size)[0]
    result = ops.dense_crf(image.cuda(), unary.cuda(), iterations=3)
    expected = ops.dense_crf(image, unary, iterations=3, backend="native")
    assert_close(result.cpu(), expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("kind", ["photo", "constant", "noise"])
@pytest.mark.parametrize("size", [(63, 100), (375, 500), (1, 4096)], ids=str)
def test_a_hash_table_builds_the_same_lattice(kind: str, size: tuple[int, int]) -> None:
    image = photo(*size, images=2)
    if kind == "constant":
        image[:] = 100
    elif kind == "noise":
        image = torch.randint(0, 256, image.shape, dtype=torch.uint8)
    image, unary = image.cuda(), energies(3, *size, images=2).cuda()

    def infer(hashed: bool) -> Tensor:
        kernels = Kernels(3.0, 3.0, 50.0, 5.0, 10.0)
        result = torch.full_like(unary, torch.nan)
        CudaCrf(image, kernels, "lattice", "single", hashed=hashed)(unary, 3, result)
        return result

    expected = infer(hashed=False)
    for _ in range(3):
        assert infer(hashed=True).equal(expected)


@pytest.mark.parametrize("classes", [2, 21])
def test_labels_and_dtypes(classes: int) -> None:
    image, unary = photo(40, 50)[0].cuda(), energies(classes, 40, 50)[0].cuda()
    marginals = ops.dense_crf(image, unary)
    labels = ops.dense_crf(image, unary, output="labels")
    assert labels.dtype == torch.uint8
    chosen = marginals.gather(0, labels.long()[None])[0]
    assert_close(chosen, marginals.amax(0))
    double = ops.dense_crf(image, unary.double())
    assert double.dtype == torch.float64
    assert_close(double.float(), marginals)
    strided = unary.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    planes = image.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    assert ops.dense_crf(planes, strided).equal(marginals)


@pytest.mark.parametrize("images", [0, 1, 5, 40])
def test_a_batch_is_its_images(images: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("c2am.ops.dense_crf_cuda._MOST_PIXELS", 3 * 23 * 31)
    image, unary = photo(23, 31, max(images, 1))[:images], energies(3, 23, 31, images)
    result = ops.dense_crf(image.cuda(), unary.cuda(), iterations=4)
    assert result.shape == unary.shape
    for b in range(images):
        expected = ops.dense_crf(image[b], unary[b], iterations=4)
        assert_close(result[b].cpu(), expected, rtol=0, atol=TOLERANCE)


def test_every_run_has_the_same_bits() -> None:
    image, unary = photo(120, 160, 2).cuda(), energies(21, 120, 160, 2).cuda()
    first = ops.dense_crf(image, unary)
    for _ in range(5):
        assert ops.dense_crf(image, unary).equal(first)


def test_half_precision_changes_little() -> None:
    image, unary = photo(60, 80)[0].cuda(), energies(21, 60, 80)[0].cuda()
    single = ops.dense_crf(image, unary)
    half = ops.dense_crf(image, unary, precision="half")
    assert not half.equal(single)
    assert (half - single).abs().mean() < 1e-3


def test_a_plan_serves_threads_and_streams() -> None:
    image = photo(60, 80)[0].cuda()
    unaries = [energies(classes, 60, 80)[0].cuda() for classes in (2, 3, 9, 21)]
    torch.cuda.synchronize()
    with torch.cuda.stream(torch.cuda.Stream()):
        plan = ops.DenseCrfPlan(image, backend="native")

    def infer(unary: Tensor) -> Tensor:
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            result = plan(unary)
        stream.synchronize()
        return result

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(infer, 4 * unaries))
    for unary, result in zip(4 * unaries, results, strict=True):
        assert result.equal(ops.dense_crf(image, unary))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_on_a_device_that_is_not_the_current_one() -> None:
    image, unary = photo(23, 31)[0], energies(3, 23, 31)[0]
    result = ops.dense_crf(image.to("cuda:1"), unary.to("cuda:1"))
    assert torch.cuda.current_device() == 0
    assert_close(result.cpu(), ops.dense_crf(image, unary), rtol=0, atol=TOLERANCE)


def test_what_a_gpu_does_not_have_is_an_error() -> None:
    image, unary = photo(9, 8)[0].cuda(), energies(3, 9, 8)[0].cuda()
    with pytest.raises(ValueError, match="too small"):
        ops.dense_crf(image, unary, bilateral_srgb=1e-14, backend="native")
    with pytest.raises(ops.BackendError, match="exact"):
        ops.dense_crf(image, unary, method="exact", backend="native")
    exact = ops.dense_crf(image, unary, method="exact")
    expected = ops.dense_crf(image.cpu(), unary.cpu(), method="exact", backend="reference")
    assert_close(exact.cpu(), expected, rtol=0, atol=TOLERANCE)


def test_memory_is_torchs_and_given_back() -> None:
    image, unary = photo(100, 100)[0].cuda(), energies(3, 100, 100)[0].cuda()
    ops.dense_crf(image, unary)
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    result = ops.dense_crf(image, unary)
    del result
    assert torch.cuda.memory_allocated() == before
