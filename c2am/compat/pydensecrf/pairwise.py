"""Pairwise potentials: a Gaussian kernel, its normalisation and the compatibility of the labels."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from numbers import Real

import numpy as np

from c2am.compat.pydensecrf import arguments


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


@dataclass(frozen=True)
class LatticeKernel:
    """exp(-|f_i - f_j|^2 / 2) on the permutohedral lattice."""

    dimension: int
    features: Callable[[], np.ndarray]
    """Makes them when they are needed: (dimension, N) float32, in standard deviations."""


@dataclass(frozen=True)
class SpatialKernel:
    """The same of the positions of an image's pixels, exact."""

    height: int
    width: int
    sx: float
    sy: float


@dataclass(frozen=True)
class PairwisePotential:
    """The energy that one kernel adds to each label of a pixel."""

    kernel: LatticeKernel | SpatialKernel
    compat: np.ndarray
    """(C, C) float32, see `compatibility`."""
    normalization: NormalizationType
    plan: Mapping[str, object] | None
    """The arguments of `ops.DenseCrfPlan` that say the same; None where none do."""


def compatibility(compat: object, labels: int) -> np.ndarray:
    """The matrix (C, C) float32 between filtered marginals and energies.

    A number w is Potts' model: -w on the diagonal, so that equal labels lower the energy. A vector
    (C,) is a diagonal and a matrix (C, C) is made symmetric; both are energies as they are.

    Raises:
        TypeError, ValueError: none of these, or not finite.
    """
    if isinstance(compat, Real):
        factors = np.full(labels, -float(compat), np.float32)
        return np.diag(arguments.finite("compat", factors))
    dimensions = getattr(compat, "ndim", 1)
    if dimensions not in (1, 2):
        raise ValueError(f"compat: expected a number, a vector or a matrix, got {compat!r}")
    given = arguments.array("compat", compat, np.float32, (labels,) * dimensions)
    arguments.finite("compat", given)
    return np.diag(given) if dimensions == 1 else (given + given.T) / 2


def potts_weight(compat: np.ndarray) -> float | None:
    """The number that stands for the same model as `compat (C, C)`; None where none does.

    What is added to all energies changes no marginal.
    """
    own, other = float(compat[0, 0]), float(compat[0, -1]) if len(compat) > 1 else 0.0
    same = np.array_equal(compat, np.where(np.eye(len(compat), dtype=bool), own, other))
    return other - own if same else None
