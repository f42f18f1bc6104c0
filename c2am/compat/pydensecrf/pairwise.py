"""Pairwise potentials: a Gaussian kernel, its normalisation and the compatibility of the labels."""

from collections.abc import Callable, Mapping
from enum import IntEnum
from functools import cached_property
from numbers import Real

import numpy as np
import torch
from torch import Tensor

from c2am.compat.pydensecrf import arguments
from c2am.compat.pydensecrf.filters import Filter

_EPSILON = 1e-20


class KernelType(IntEnum):
    """Which parameters of a kernel can be learned in the C++ library; inference ignores it."""

    CONST_KERNEL = 0
    DIAG_KERNEL = 1
    FULL_KERNEL = 2


class NormalizationType(IntEnum):
    """Where a kernel is divided by its sums s_i = sum_j k_ij."""

    NO_NORMALIZATION = 0
    NORMALIZE_BEFORE = 1
    """k_ij / s_j"""
    NORMALIZE_AFTER = 2
    """k_ij / s_i"""
    NORMALIZE_SYMMETRIC = 3
    """k_ij / sqrt(s_i s_j)"""


class PairwisePotential:
    """The energy that one kernel adds to each label of a pixel.

    Args:
        make_filter: makes the filter with the kernel, when it is first used.
        pixels: N.
        compat: (), (C,) or (C, C), see `compatibility`.
        normalization: where the kernel is normalised.
        plan: the arguments of `ops.DenseCrfPlan` that say the same; None where none do.
    """

    def __init__(
        self,
        make_filter: Callable[[], Filter],
        pixels: int,
        compat: Tensor,
        normalization: NormalizationType,
        plan: Mapping[str, object] | None = None,
    ) -> None:
        self._make_filter = make_filter
        self._pixels = pixels
        self._compat = compat
        self._normalization = normalization
        self.plan = plan

    def energy(self, q: Tensor) -> Tensor:
        """(N, C): the normalised kernel times the marginals `q (N, C)`, times the compatibility."""
        before, after = self._norms
        filtered = self._filter(q * before) * after
        return filtered @ self._compat if self._compat.ndim == 2 else filtered * self._compat

    @cached_property
    def _filter(self) -> Filter:
        return self._make_filter()

    @cached_property
    def _norms(self) -> tuple[Tensor, Tensor]:
        """(N, 1) factors of what goes into the filter, and of what comes out."""
        ones = torch.ones(self._pixels, 1)
        if self._normalization == NormalizationType.NO_NORMALIZATION:
            return ones, ones
        sums = self._filter(ones) + _EPSILON
        if self._normalization == NormalizationType.NORMALIZE_SYMMETRIC:
            return sums.rsqrt(), sums.rsqrt()
        before = self._normalization == NormalizationType.NORMALIZE_BEFORE
        return (1 / sums, ones) if before else (ones, 1 / sums)


def compatibility(compat: object, labels: int) -> Tensor:
    """The factor between filtered marginals and energies, float32.

    A number w is Potts' model: (), -w, so that equal labels lower the energy. A vector (C,) scales
    each label, a matrix (C, C), made symmetric, mixes them; both are energies as they are.

    Raises:
        TypeError, ValueError: none of these, or not finite.
    """
    if isinstance(compat, Real):
        factor: np.ndarray = np.array(-float(compat), np.float32)
    else:
        dimensions = getattr(compat, "ndim", 1)
        if dimensions not in (1, 2):
            raise ValueError(f"compat: expected a number, a vector or a matrix, got {compat!r}")
        factor = arguments.array("compat", compat, np.float32, (labels,) * dimensions)
        if dimensions == 2:
            factor = (factor + factor.T) / 2
    return torch.as_tensor(arguments.finite("compat", factor))
