"""`DenseCRF` and `DenseCRF2D` as in pydensecrf: mean field in a fully connected CRF.

Q <- softmax(-U - sum over potentials of compat(n_i sum_j k_ij n_j Q_j)), from Q = softmax(-U)
(Kraehenbuehl & Koltun 2011, Alg. 1). N = nvar pixels, C = nlabels. See `docs/crf.md`.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from c2am import ops
from c2am.compat.pydensecrf import arguments
from c2am.compat.pydensecrf.filters import Filter, lattice_filter, spatial_filter
from c2am.compat.pydensecrf.pairwise import (
    KernelType,
    NormalizationType,
    PairwisePotential,
    compatibility,
)
from c2am.compat.pydensecrf.unary import ConstUnary, LogisticUnary, Unary
from c2am.ops.dense_crf import MAX_CLASSES

CONST_KERNEL, DIAG_KERNEL, FULL_KERNEL = KernelType
NO_NORMALIZATION, NORMALIZE_BEFORE, NORMALIZE_AFTER, NORMALIZE_SYMMETRIC = NormalizationType

# OpenMP's threads do not live on in a forked process, which would wait for them for ever. Scripts
# that ran pydensecrf in a pool of processes have their parallelism already.
os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))


class DenseCRF:
    """A CRF of `nvar` pixels in any arrangement and `nlabels` labels.

    Raises:
        TypeError, ValueError: a wrong argument, here and in all methods; the message names it.
    """

    def __init__(self, nvar: int, nlabels: int) -> None:
        self._nvar = arguments.whole("nvar", nvar, 1)
        self._nlabel = arguments.whole("nlabels", nlabels, 1)
        self._unary: Tensor | None = None  # (C, N)
        self._potentials: list[PairwisePotential] = []

    def setUnaryEnergy(self, u: np.ndarray, f: np.ndarray | None = None) -> None:
        """Set the energies -log p: `u (C, N)` float32, C-contiguous.

        +infinity rules a label out. With `f (k, N)` they are those of `LogisticUnary(u, f)`.
        """
        self.setUnary(ConstUnary(u) if f is None else LogisticUnary(u, f))

    def setUnary(self, u: Unary) -> None:
        """Set the energies by a `ConstUnary` or a `LogisticUnary`."""
        if not isinstance(u, Unary):
            raise TypeError(f"u: expected a Unary, got {type(u).__name__}")
        expected = (self._nlabel, self._nvar)
        if u.energy.shape != expected:
            raise ValueError(f"u: expected shape {expected} (labels, pixels), got {u.energy.shape}")
        self._unary = torch.from_numpy(u.energy)

    def addPairwiseEnergy(
        self,
        features: np.ndarray,
        compat: float | np.ndarray,
        kernel: int = DIAG_KERNEL,
        normalization: int = NORMALIZE_SYMMETRIC,
    ) -> None:
        """Add a Gaussian kernel over `features (d, N)` float32, in standard deviations.

        Args:
            features: any d; `utils.create_pairwise_gaussian` and `..._bilateral` make them.
            compat: a number (Potts), a vector (C,) or a matrix (C, C), float32.
            kernel: a `KernelType`; it does not change the inference.
            normalization: a `NormalizationType`.
        """
        matrix = arguments.array("features", features, np.float32, ("d", self._nvar))
        arguments.finite("features", matrix)
        self._add(partial(lattice_filter, matrix), compat, kernel, normalization)

    def inference(self, niter: int) -> np.ndarray:
        """The marginals (C, N) float32 after `niter` mean-field updates."""
        steps = arguments.whole("niter", niter, 0)
        unary = self._energies()
        q = _softmax(-unary)
        for _ in range(steps):
            q = self._update(q, unary)
        return q.T.contiguous().numpy()

    def startInference(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Q (C, N) before the first update, and two empty arrays, which `stepInference` ignores.

        As in pydensecrf, Q is zero where no unary energy has been set.
        """
        start = torch.zeros(self._nlabel, self._nvar)
        if self._unary is not None:
            start = torch.softmax(-self._unary, 0)
        return start.numpy(), np.empty((0, 0), np.float32), np.empty((0, 0), np.float32)

    def stepInference(self, Q: np.ndarray, tmp1: object = None, tmp2: object = None) -> None:
        """Update the marginals `Q (C, N)` float32 once, in place."""
        Q[...] = self._update(self._marginals(Q), self._energies()).T.numpy()

    def klDivergence(self, Q: np.ndarray) -> float:
        """Sum of Q log Q, U Q and Q times the pairwise energies, for marginals `Q (C, N)` float32.

        It falls from update to update; its minimum over all Q is not 0.
        """
        q = self._marginals(Q)
        energy = self._energies() + q.clamp(min=1e-20).log()
        for potential in self._potentials:
            energy += potential.energy(q)
        return float((q.double() * energy).sum())

    def _update(self, q: Tensor, unary: Tensor) -> Tensor:
        """One mean-field update; all are (N, C)."""
        logits = -unary
        for potential in self._potentials:
            logits -= potential.energy(q)
        return _softmax(logits)

    def _energies(self) -> Tensor:
        """The unary energies, (N, C)."""
        if self._unary is None:
            return torch.zeros(self._nvar, self._nlabel)
        return self._unary.T.contiguous()

    def _marginals(self, q: np.ndarray) -> Tensor:
        given = arguments.array("Q", q, np.float32, (self._nlabel, self._nvar))
        return torch.from_numpy(given).T.contiguous()

    def _add(
        self,
        make_filter: Callable[[], Filter],
        compat: object,
        kernel: int,
        normalization: int,
        plan: Mapping[str, object] | None = None,
    ) -> None:
        KernelType(kernel)
        self._potentials.append(
            PairwisePotential(
                make_filter,
                self._nvar,
                compatibility(compat, self._nlabel),
                NormalizationType(normalization),
                plan,
            )
        )


class DenseCRF2D(DenseCRF):
    """A CRF of an image of width `w` and height `h`, row by row, with `nlabels` labels."""

    def __init__(self, w: int, h: int, nlabels: int) -> None:
        self._width = arguments.whole("w", w, 1)
        self._height = arguments.whole("h", h, 1)
        super().__init__(self._width * self._height, nlabels)
        self._plan: ops.DenseCrfPlan | None = None

    def addPairwiseGaussian(
        self,
        sxy: float | Sequence[float],
        compat: float | np.ndarray,
        kernel: int = DIAG_KERNEL,
        normalization: int = NORMALIZE_SYMMETRIC,
    ) -> None:
        """Add a Gaussian kernel over the position.

        It is exact where it is normalised. `NO_NORMALIZATION` takes the lattice, on which a
        kernel is smaller by a factor, so that `compat` means what it means in pydensecrf.

        Args:
            sxy: standard deviations in pixels: a number, or two (x, y).
            compat, kernel, normalization: see `addPairwiseEnergy`.
        """
        sigmas = arguments.deviations("sxy", sxy, 2)
        if normalization == NO_NORMALIZATION:
            make_filter = partial(lattice_filter, self._features(sigmas))
        else:
            make_filter = partial(spatial_filter, self._height, self._width, *sigmas)
        plan = None
        if _is_default(compat, normalization, sigmas):
            plan = {"gaussian_sxy": sigmas[0], "gaussian_compat": compat}
        self._add(make_filter, compat, kernel, normalization, plan)

    def addPairwiseBilateral(
        self,
        sxy: float | Sequence[float],
        srgb: float | Sequence[float],
        rgbim: np.ndarray,
        compat: float | np.ndarray,
        kernel: int = DIAG_KERNEL,
        normalization: int = NORMALIZE_SYMMETRIC,
    ) -> None:
        """Add a Gaussian kernel over position and colour, on the lattice.

        Args:
            sxy: standard deviations in pixels: a number, or two (x, y).
            srgb: standard deviations in grey levels 0..255: a number, or three.
            rgbim: (H, W, 3) uint8, C-contiguous; `utils.create_pairwise_bilateral` takes others.
            compat, kernel, normalization: see `addPairwiseEnergy`.
        """
        place, colour = arguments.deviations("sxy", sxy, 2), arguments.deviations("srgb", srgb, 3)
        image = arguments.array("rgbim", rgbim, np.uint8, (self._height, self._width, 3))
        plan = None
        if _is_default(compat, normalization, place, colour):
            plan = {
                "image": torch.from_numpy(image),
                "bilateral_sxy": place[0],
                "bilateral_srgb": colour[0],
                "bilateral_compat": compat,
            }

        def make_filter() -> Filter:
            return lattice_filter(self._features(place + colour, image))

        self._add(make_filter, compat, kernel, normalization, plan)

    def inference(self, niter: int) -> np.ndarray:
        """The marginals (C, N) float32 after `niter` mean-field updates.

        One bilateral kernel, with or without one Gaussian, with numbers for `sxy`, `srgb` and
        `compat` and the default normalisation, is left to `ops.DenseCrfPlan`, which is kept for
        the next call.
        """
        plan = self._find_plan()
        if plan is None:
            return super().inference(niter)
        steps = arguments.whole("niter", niter, 0)
        unary = self._energies().T.reshape(self._nlabel, self._height, self._width)
        return plan(unary, iterations=steps).flatten(1).numpy()

    def _add(self, *potential: Any) -> None:
        super()._add(*potential)
        self._plan = None

    def _find_plan(self) -> ops.DenseCrfPlan | None:
        """The plan that has all potentials, if there can be one."""
        if self._plan is not None or self._nlabel > MAX_CLASSES:
            return self._plan
        found: dict[str, Any] = {}
        for potential in self._potentials:
            if potential.plan is None or found.keys() & potential.plan.keys():
                return None
            found |= potential.plan
        if "image" in found:
            self._plan = ops.DenseCrfPlan(**({"gaussian_compat": 0.0} | found))
        return self._plan

    def _features(self, sigmas: Sequence[float], image: np.ndarray | None = None) -> np.ndarray:
        """(d, N) float32: x, y and the colours, each over its standard deviation."""
        y, x = np.indices((self._height, self._width), np.float32)
        colours = [] if image is None else list(np.moveaxis(image, 2, 0).astype(np.float32))
        rows = zip((x, y, *colours), sigmas, strict=True)
        return np.stack([(row / np.float32(sigma)).ravel() for row, sigma in rows])


def _softmax(logits: Tensor) -> Tensor:
    """Over the labels of `logits (N, C)`; torch is slow along a short last dimension."""
    if logits.shape[1] >= 16:
        return torch.softmax(logits, 1)
    return torch.softmax(logits.T.contiguous(), 0).T.contiguous()


def _is_default(compat: object, normalization: int, *sigmas: Sequence[float]) -> bool:
    """Whether `ops.DenseCrfPlan` has the kernel: Potts, symmetric, the same on all axes."""
    same = all(len(set(group)) == 1 for group in sigmas)
    return isinstance(compat, Real) and normalization == NORMALIZE_SYMMETRIC and same
