"""Mean field with any potentials: in the compiled core, and in plain PyTorch.

Q <- softmax(-U + m), m = -sum over potentials of M a_i sum_j k_ij b_j Q_j, where a and b normalise
the kernel k and M is the compatibility. Arrays are float32 and C-contiguous.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from c2am import ops
from c2am.compat.pydensecrf.pairwise import (
    LatticeKernel,
    NormalizationType,
    PairwisePotential,
    SpatialKernel,
)
from c2am.ops.permutohedral import PermutohedralLattice

_COMPILED_DIMENSIONS = 16
_EPSILON = 1e-20


class MeanField(Protocol):
    """The potentials of a CRF, for any unary energies."""

    def update(self, unary: np.ndarray, q: np.ndarray, steps: int, *, started: bool) -> None:
        """Update `q (C, N)` in place, from softmax(-unary) or, if `started`, from what it is."""

    def messages(self, q: np.ndarray) -> np.ndarray:
        """m (C, N) of the marginals `q (C, N)`."""


def mean_field(potentials: Sequence[PairwisePotential], pixels: int, labels: int) -> MeanField:
    """The compiled one, if it is installed and no kernel has more dimensions than it takes.

    Raises:
        ValueError: features are so many standard deviations wide that the core's keys overflow.
    """
    compiled = ops.backend_of("dense_crf", "cpu") == "native" and all(
        isinstance(potential.kernel, SpatialKernel)
        or 1 <= potential.kernel.dimension <= _COMPILED_DIMENSIONS
        for potential in potentials
    )
    if compiled:
        return _NativeMeanField(potentials, pixels, labels)
    return _ReferenceMeanField(potentials, pixels)


class _NativeMeanField:
    def __init__(self, potentials: Sequence[PairwisePotential], pixels: int, labels: int) -> None:
        from c2am import _core

        self._core = _core.MeanField(pixels, labels)
        for potential in potentials:
            self._add(potential, pixels)

    def _add(self, potential: PairwisePotential, pixels: int) -> None:
        kernel, normalization = potential.kernel, potential.normalization
        compat, threads = potential.compat.ctypes.data, torch.get_num_threads()
        if isinstance(kernel, SpatialKernel):
            self._core.add_spatial(
                kernel.height,
                kernel.width,
                kernel.sx,
                kernel.sy,
                normalization=normalization,
                compat=compat,
                threads=threads,
            )
        else:
            features = kernel.features()
            self._core.add_lattice(
                features.ctypes.data,
                pixels,
                kernel.dimension,
                normalization=normalization,
                compat=compat,
                threads=threads,
            )

    def update(self, unary: np.ndarray, q: np.ndarray, steps: int, *, started: bool) -> None:
        ops.launches["mean_field", "native"] += 1
        self._core.update(
            unary.ctypes.data,
            q.ctypes.data,
            steps=steps,
            started=started,
            threads=torch.get_num_threads(),
        )

    def messages(self, q: np.ndarray) -> np.ndarray:
        out = np.empty_like(q)
        ops.launches["mean_field", "native"] += 1
        self._core.messages(q.ctypes.data, out.ctypes.data, threads=torch.get_num_threads())
        return out


_Filter = Callable[[Tensor], Tensor]
"""(C, N) -> (C, N): sum over j of k_ij times the values of pixel j."""


class _ReferenceMeanField:
    def __init__(self, potentials: Sequence[PairwisePotential], pixels: int) -> None:
        self._terms = []
        for potential in potentials:
            filtered = _filter(potential.kernel)
            norms = _norms(filtered, potential.normalization, pixels)
            self._terms.append((filtered, *norms, torch.from_numpy(potential.compat)))

    def update(self, unary: np.ndarray, q: np.ndarray, steps: int, *, started: bool) -> None:
        energy, marginals = torch.from_numpy(unary), torch.from_numpy(q)
        if not started:
            marginals.copy_(torch.softmax(-energy, 0))
        for _ in range(steps):
            marginals.copy_(torch.softmax(self._messages(marginals) - energy, 0))

    def messages(self, q: np.ndarray) -> np.ndarray:
        return self._messages(torch.from_numpy(q)).numpy()

    def _messages(self, q: Tensor) -> Tensor:
        total = torch.zeros_like(q)
        for filtered, before, after, compat in self._terms:
            total -= compat @ (after * filtered(before * q))
        return total


def _filter(kernel: LatticeKernel | SpatialKernel) -> _Filter:
    if isinstance(kernel, LatticeKernel):
        return PermutohedralLattice(torch.from_numpy(kernel.features()).T).filter
    down, across = _gaussian(kernel.height, kernel.sy), _gaussian(kernel.width, kernel.sx)
    shape = (-1, kernel.height, kernel.width)
    return lambda values: (down @ values.view(shape) @ across).flatten(1)


def _gaussian(extent: int, sigma: float) -> Tensor:
    """(extent, extent): the kernel of all pairs of positions along an axis."""
    at = torch.arange(extent, dtype=torch.float64) / sigma
    return torch.exp(-0.5 * (at[:, None] - at) ** 2).float()


def _norms(
    filtered: _Filter, normalization: NormalizationType, pixels: int
) -> tuple[Tensor, Tensor]:
    """Factors (1, N) of what goes into the filter, and of what comes out."""
    ones = torch.ones(1, pixels)
    if normalization == NormalizationType.NO_NORMALIZATION:
        return ones, ones
    sums = filtered(ones) + _EPSILON
    if normalization == NormalizationType.NORMALIZE_SYMMETRIC:
        return sums.rsqrt(), sums.rsqrt()
    before = normalization == NormalizationType.NORMALIZE_BEFORE
    return (1 / sums, ones) if before else (ones, 1 / sums)
