"""c2am.compat.pydensecrf and pydensecrf on crops, each against the exact sum."""

from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

import c2am.compat.pydensecrf.densecrf as ours
from benchmarks.images import drawn
from c2am import ops


def crops(kind: str, request: pytest.FixtureRequest) -> list[torch.Tensor]:
    """Three of 48 x 64 pixels, of an image like a photograph or of photographs."""
    if kind == "drawn":
        whole = drawn(144, 192, torch.device("cpu"))
        return [whole[48 * i : 48 * i + 48, 64 * i : 64 * i + 64].contiguous() for i in range(3)]
    folder = request.getfixturevalue("voc_root") / "JPEGImages"
    wholes = [torch.from_numpy(np.array(Image.open(p))) for p in sorted(folder.glob("*.jpg"))[:3]]
    return [whole[100:148, 100:164].contiguous() for whole in wholes]


@pytest.mark.parametrize("kind", ["drawn", "photographs"])
@pytest.mark.parametrize(
    ("labels", "kernels"), [(3, (3.0, 3.0, 50.0, 5.0, 10.0)), (21, (1.0, 3.0, 67.0, 3.0, 4.0))]
)
def test_crops_are_no_further_from_the_exact_result(
    kind: str,
    labels: int,
    kernels: tuple[float, ...],
    theirs: ModuleType,
    request: pytest.FixtureRequest,
) -> None:
    """By the share of labels that differ: 0.05 points at most."""
    generator = torch.Generator().manual_seed(5)
    names = "gaussian_sxy", "gaussian_compat", "bilateral_sxy", "bilateral_srgb", "bilateral_compat"
    spatial_sxy, spatial_compat, sxy, srgb, compat = kernels
    wrong = []
    for image in crops(kind, request):
        coarse = torch.randint(0, labels, (6, 8), generator=generator)
        given = coarse.repeat_interleave(8, 0).repeat_interleave(8, 1)
        unary = ops.unary_from_labels(given, labels, 0.7)
        settings = dict(zip(names, kernels, strict=True))
        truth = ops.dense_crf(image, unary, method="exact", **settings).argmax(0).flatten()
        for module in (ours, theirs):
            crf = module.DenseCRF2D(64, 48, labels)
            crf.setUnaryEnergy(unary.flatten(1).numpy())
            crf.addPairwiseGaussian(sxy=spatial_sxy, compat=spatial_compat)
            crf.addPairwiseBilateral(sxy=sxy, srgb=srgb, rgbim=image.numpy(), compat=compat)
            result = np.array(crf.inference(10)).argmax(0)
            wrong.append((result != truth.numpy()).mean())
    assert np.mean(wrong[::2]) <= np.mean(wrong[1::2]) + 0.0005
