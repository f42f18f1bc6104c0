"""dense_crf: what holds whatever the image, its options, and the instruction sets."""

import os
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from c2am import _core, ops


def photo(height: int, width: int) -> Tensor:
    """An image (H, W, 3) of smooth colours with noise."""
    coarse = torch.rand(1, 3, 4, 5) * 200
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")
    noisy = smooth[0].permute(1, 2, 0) + 20 * torch.rand(height, width, 3)
    return noisy.clamp(0, 255).to(torch.uint8)


def energies(classes: int, height: int, width: int) -> Tensor:
    return 3 * torch.rand(classes, height, width)


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("classes", [1, 2, 5, 128])
@pytest.mark.usefixtures("nan_in_fresh_memory")
def test_labels_are_the_arg_max(
    classes: int, backend: str, launched: Callable[[str, str], int]
) -> None:
    image, unary = photo(17, 23), energies(classes, 17, 23)
    marginals = ops.dense_crf(image, unary, iterations=3, backend=backend)
    labels = ops.dense_crf(image, unary, iterations=3, output="labels", backend=backend)
    assert launched("dense_crf", "native") == (2 if backend == "native" else 0)
    assert labels.dtype == torch.uint8
    # Labels come from logits, whose order may be lost where marginals are rounded to 1.
    best, chosen = marginals.max(0).values, marginals.gather(0, labels.long()[None])[0]
    assert_close(chosen, best)


def test_labels_of_a_batch_and_of_a_plan() -> None:
    images = torch.stack([photo(9, 12), photo(9, 12)])
    unary = torch.stack([energies(4, 9, 12), energies(4, 9, 12)])
    labels = ops.dense_crf(images, unary, output="labels")
    assert labels.shape == (2, 9, 12)
    for image, own, expected in zip(images, unary, labels, strict=True):
        assert ops.DenseCrfPlan(image)(own, output="labels").equal(expected)


@pytest.mark.parametrize("classes", [2, 3, 21])
def test_half_precision_changes_little(classes: int) -> None:
    image = photo(120, 160)
    field = torch.nn.functional.interpolate(4 * torch.randn(1, classes, 6, 8), (120, 160))[0]
    unary = ops.unary_from_softmax(field.softmax(0))
    single = ops.dense_crf(image, unary)
    half = ops.dense_crf(image, unary, precision="half")
    assert not half.equal(single)
    assert (half - single).abs().mean() < 2e-5
    changed = half.argmax(0) != single.argmax(0)
    assert changed.sum() <= 1  # of 19,200
    first, second = single.topk(2, 0).values[:, changed]
    assert (first - second < 0.005).all()  # of nearly equal labels


@pytest.mark.parametrize("classes", [2, 7])
def test_a_constant_added_to_the_energies_changes_nothing(classes: int) -> None:
    image, unary = photo(20, 30), energies(classes, 20, 30)
    result = ops.dense_crf(image, unary, iterations=5)
    per_pixel = 4 * torch.rand(20, 30)
    assert_close(ops.dense_crf(image, unary + 2, iterations=5), result, rtol=0, atol=1e-4)
    assert_close(ops.dense_crf(image, unary + per_pixel, iterations=5), result, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", ["constant", "noise", "row", "column"])
def test_images_without_structure(kind: str) -> None:
    height, width = {"row": (1, 70), "column": (70, 1)}.get(kind, (15, 19))
    image = torch.randint(0, 256, (height, width, 3), dtype=torch.uint8)
    if kind == "constant":
        image[:] = torch.tensor([12, 200, 31], dtype=torch.uint8)
    unary = energies(3, height, width)
    result = ops.dense_crf(image, unary, iterations=5, backend="native")
    expected = ops.dense_crf(image, unary.double(), iterations=5, backend="reference")
    assert_close(result.double(), expected, rtol=0, atol=2e-4)
    exact = ops.dense_crf(image, unary, iterations=5, method="exact")
    assert (result - exact).abs().mean() < 0.05


def test_one_normalised_filtering_is_near_the_exact_sum() -> None:
    """From uniform marginals, one update's log-odds are the energies plus n_i sum k_ij n_j Q_j."""
    image = photo(40, 50)
    unary = torch.stack([torch.zeros(40, 50), (image.sum(-1) > 300).float()])
    options = {"iterations": 1, "gaussian_compat": 0.0, "bilateral_compat": 1.0}

    def message(method: str) -> Tensor:
        q = ops.dense_crf(image, unary, method=method, **options)  # type: ignore[arg-type]
        return torch.log(q[0] / q[1]) - (unary[1] - unary[0])

    lattice, exact = message("lattice"), message("exact")
    assert (lattice - exact).abs().mean() < 0.1 * exact.abs().mean()


def test_large_differences_of_energy_stay_finite() -> None:
    image, unary = photo(10, 11), energies(3, 10, 11)
    unary[1] = 1e6
    unary[2, :5] = -1e6
    result = ops.dense_crf(image, unary)
    assert_close(result.sum(0), torch.ones(10, 11))
    assert_close(result[2, :5], torch.ones(5, 11))


ISAS = ("scalar", "avx2", "avx512")
RUN = """
import torch
from c2am import _core, ops
image, unary = torch.load(r"{inputs}")
options = ({{"precision": "single"}}, {{"precision": "half"}}, {{"method": "exact"}})
outputs = [
    ops.dense_crf(image, unary[:classes], backend="native", **option)
    for classes in (2, 3, 7, 21) for option in options
]
torch.save((_core.isa, outputs), r"{outputs}")
"""


@pytest.mark.parametrize("isa", ISAS)
def test_all_instruction_sets_agree(isa: str, tmp_path: os.PathLike[str]) -> None:
    if ISAS.index(isa) > ISAS.index(_core.isa):
        pytest.skip(f"this processor has no {isa}")
    image, unary = photo(30, 37), energies(21, 30, 37)
    inputs, outputs = os.path.join(tmp_path, "inputs.pt"), os.path.join(tmp_path, "outputs.pt")
    torch.save((image, unary), inputs)
    code = RUN.format(inputs=inputs, outputs=outputs)
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"C2AM_ISA": isa})
    used, results = torch.load(outputs)
    assert used == isa
    for i, classes in enumerate((2, 3, 7, 21)):
        expected = ops.dense_crf(image, unary[:classes].double(), backend="reference")
        single, half, exact = results[3 * i : 3 * i + 3]
        assert_close(single.double(), expected, rtol=0, atol=2e-4)
        assert_close(half.double(), expected, rtol=0, atol=0.1)
        assert (half.double() - expected).abs().mean() < 2e-4
        all_pairs = ops.dense_crf(
            image, unary[:classes].double(), method="exact", backend="reference"
        )
        assert_close(exact.double(), all_pairs, rtol=0, atol=2e-4)
