"""c2am.compat.pydensecrf: wrong arguments fail, as in pydensecrf where that notices them."""

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import c2am.compat.pydensecrf.densecrf as ours

Crf = Any

U, IMAGE = np.zeros((3, 20), np.float32), np.zeros((4, 5, 3), np.uint8)
BAD: dict[str, tuple[str, Callable[[Crf], object]]] = {
    "u float64": ("u", lambda c: c.setUnaryEnergy(U.astype(float))),
    "u Fortran": ("u", lambda c: c.setUnaryEnergy(np.asfortranarray(U))),
    "u shape": ("u", lambda c: c.setUnaryEnergy(U[:2])),
    "u 3-D": ("u", lambda c: c.setUnaryEnergy(U.reshape(3, 4, 5))),
    "u list": ("u", lambda c: c.setUnaryEnergy([[1.0]])),
    "u None": ("u", lambda c: c.setUnaryEnergy(None)),
    "features": ("features", lambda c: c.addPairwiseEnergy(U[:, :19].copy(), 3)),
    "features float64": ("features", lambda c: c.addPairwiseEnergy(U.astype(float), 3)),
    "image float": ("rgbim", lambda c: c.addPairwiseBilateral(3, 3, IMAGE.astype(np.float32), 3)),
    "image shape": ("rgbim", lambda c: c.addPairwiseBilateral(3, 3, IMAGE[:3], 3)),
    "image grey": ("rgbim", lambda c: c.addPairwiseBilateral(3, 3, IMAGE[..., :1].copy(), 3)),
    "image strides": ("rgbim", lambda c: c.addPairwiseBilateral(3, 3, IMAGE[:, ::-1], 3)),
    "image None": ("rgbim", lambda c: c.addPairwiseBilateral(3, 3, None, 3)),
    "compat float64": ("compat", lambda c: c.addPairwiseGaussian(3, np.ones(3))),
    "compat 3-D": ("compat", lambda c: c.addPairwiseGaussian(3, np.ones((3, 3, 3), np.float32))),
    "compat list": ("compat", lambda c: c.addPairwiseGaussian(3, [1, 1, 1])),
    "compat word": ("compat", lambda c: c.addPairwiseGaussian(3, "3")),
}
BAD_HERE: dict[str, tuple[str, Callable[[Crf], object]]] = {
    "u NaN": ("u", lambda c: c.setUnaryEnergy(U * np.float32("nan"))),
    "u -infinity": ("u", lambda c: c.setUnaryEnergy(U - np.float32("inf"))),
    "features NaN": ("features", lambda c: c.addPairwiseEnergy(U * np.float32("nan"), 3)),
    "compat length": ("compat", lambda c: c.addPairwiseGaussian(3, np.ones(4, np.float32))),
    "compat NaN": ("compat", lambda c: c.addPairwiseGaussian(3, float("nan"))),
    "sxy 0": ("sxy", lambda c: c.addPairwiseGaussian(0, 3)),
    "sxy three": ("sxy", lambda c: c.addPairwiseGaussian((1, 2, 3), 3)),
    "srgb": ("srgb", lambda c: c.addPairwiseBilateral(3, (1, 2), IMAGE, 3)),
    "kernel": ("7", lambda c: c.addPairwiseGaussian(3, 3, kernel=7)),
    "normalization": ("9", lambda c: c.addPairwiseGaussian(3, 3, normalization=9)),
    "niter": ("niter", lambda c: c.inference(-1)),
    "niter half": ("niter", lambda c: c.inference(0.5)),
    "Q": ("Q", lambda c: c.stepInference(U[:2])),
    "unary": ("u", lambda c: c.setUnary(U)),
}


@pytest.mark.parametrize(("name", "call"), BAD.values(), ids=BAD)
def test_wrong_arguments_fail_as_in_pydensecrf(
    name: str, call: Callable[[Crf], object], theirs: ModuleType
) -> None:
    with pytest.raises((ValueError, TypeError)) as error:
        call(theirs.DenseCRF2D(5, 4, 3))
    with pytest.raises(error.type, match=rf"^{name}: "):
        call(ours.DenseCRF2D(5, 4, 3))


@pytest.mark.parametrize(("name", "call"), BAD_HERE.values(), ids=BAD_HERE)
def test_wrong_arguments_are_named(name: str, call: Callable[[Crf], object]) -> None:
    with pytest.raises((ValueError, TypeError), match=name):
        call(ours.DenseCRF2D(5, 4, 3))


@pytest.mark.parametrize("sizes", [(0, 4, 3), (5, -1, 3), (5, 4, 0), (5.5, 4, 3)], ids=str)
def test_sizes_are_checked(sizes: Sequence[int]) -> None:
    with pytest.raises(ValueError, match="expected an integer of at least 1"):
        ours.DenseCRF2D(*sizes)
