"""c2am.compat.pydensecrf.utils against pydensecrf.utils."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from c2am.compat.pydensecrf import utils

IMAGE = np.zeros((4, 5, 3), np.uint8)


@pytest.mark.parametrize("zero_unsure", [True, False])
@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
def test_unary_from_labels(zero_unsure: bool, dtype: type, their_utils: ModuleType) -> None:
    labels = np.random.default_rng(0).integers(0, 3, (4, 5, 2))
    counted = 2 if zero_unsure else 3
    # Their labels - 1 overflows for unsigned integers.
    expected = their_utils.unary_from_labels(labels, counted, 0.6, zero_unsure)
    result = utils.unary_from_labels(labels.astype(dtype), counted, 0.6, zero_unsure)
    assert result.dtype == expected.dtype
    assert result.flags.c_contiguous
    assert_allclose(result, expected, rtol=1e-6)


@pytest.mark.parametrize("scale", [None, 0.5, 1.0])
@pytest.mark.parametrize("clip", [None, 1e-5, 0.1])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_unary_from_softmax(
    scale: float | None, clip: float | None, dtype: type, their_utils: ModuleType
) -> None:
    probability = np.random.default_rng(0).dirichlet(np.ones(3), (4, 5)).transpose(2, 0, 1)
    before = probability.astype(dtype)
    result = utils.unary_from_softmax(before, scale, clip)
    expected = their_utils.unary_from_softmax(before, scale, clip)
    assert result.dtype == expected.dtype
    assert_allclose(result, expected, rtol=1e-5, atol=1e-7)
    assert_array_equal(before, probability.astype(dtype))


def test_former_names(their_utils: ModuleType) -> None:
    labels = np.array([[0, 1, 2]])
    probability = np.array([[0.25, 1], [0.75, 0]])
    with pytest.deprecated_call():
        result = utils.compute_unary(labels, 2, 0.8)
    assert_allclose(result, their_utils.compute_unary(labels, 2, 0.8), rtol=1e-6)
    with pytest.deprecated_call():
        result = utils.softmax_to_unary(probability, 0.9)
    assert_allclose(result, their_utils.softmax_to_unary(probability, 0.9), rtol=1e-6)


@pytest.mark.parametrize("shape", [(7,), (4, 5), (3, 4, 2)], ids=str)
def test_create_pairwise_gaussian(shape: tuple[int, ...], their_utils: ModuleType) -> None:
    sigmas = (3, 0.5, 7)[: len(shape)]
    expected = their_utils.create_pairwise_gaussian(sigmas, shape)
    result = utils.create_pairwise_gaussian(sigmas, shape)
    assert result.dtype == expected.dtype
    assert result.flags.c_contiguous
    assert_allclose(result, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("shape", "chdim", "schan"),
    [((4, 5, 3), 2, (5, 6, 7)), ((3, 4, 5), 0, 9), ((4, 3, 5), 1, 9.5), ((4, 5), -1, (2,))],
    ids=str,
)
def test_create_pairwise_bilateral(
    shape: tuple[int, ...], chdim: int, schan: Any, their_utils: ModuleType
) -> None:
    image = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    expected = their_utils.create_pairwise_bilateral((3, 0.5), schan, image, chdim)
    result = utils.create_pairwise_bilateral((3, 0.5), schan, image, chdim)
    assert result.dtype == expected.dtype
    assert result.flags.c_contiguous
    assert_allclose(result, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("labels", lambda: utils.unary_from_labels(np.array([0.5]), 2, 0.7)),
        ("labels", lambda: utils.unary_from_labels(np.array([3]), 2, 0.7)),
        ("gt_prob", lambda: utils.unary_from_labels(np.array([1]), 2, 1.0)),
        ("scale", lambda: utils.unary_from_softmax(np.ones((1, 2)), 0)),
        ("sdims", lambda: utils.create_pairwise_gaussian((3, 3), (4, 5, 6))),
        ("schan", lambda: utils.create_pairwise_bilateral((3, 3), (1, 2), IMAGE, 2)),
    ],
)
def test_helpers_name_wrong_arguments(name: str, call: Callable[[], object]) -> None:
    with pytest.raises((ValueError, TypeError), match=name):
        call()
