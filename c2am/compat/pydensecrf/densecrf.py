"""`DenseCRF` and `DenseCRF2D` as in pydensecrf: mean field in a fully connected CRF.

Q <- softmax(-U - sum over potentials of compat(n_i sum_j k_ij n_j Q_j)), from Q = softmax(-U)
(Kraehenbuehl & Koltun 2011, Alg. 1). N = nvar pixels, C = nlabels. See `docs/crf.md`.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from c2am import ops
from c2am.compat.pydensecrf import arguments
from c2am.compat.pydensecrf.mean_field import MeanField, mean_field
from c2am.compat.pydensecrf.pairwise import (
    KernelType,
    LatticeKernel,
    NormalizationType,
    PairwisePotential,
    SpatialKernel,
    compatibility,
    potts_weight,
)
from c2am.compat.pydensecrf.unary import ConstUnary, LogisticUnary, Unary
from c2am.ops.dense_crf import MAX_CLASSES

CONST_KERNEL, DIAG_KERNEL, FULL_KERNEL = KernelType
NO_NORMALIZATION, NORMALIZE_BEFORE, NORMALIZE_AFTER, NORMALIZE_SYMMETRIC = NormalizationType


class DenseCRF:
    """A CRF of `nvar` pixels in any arrangement and `nlabels` labels.

    Raises:
        TypeError, ValueError: a wrong argument, here and in all methods; the message names it.
    """

    def __init__(self, nvar: int, nlabels: int) -> None:
        self._nvar = arguments.whole("nvar", nvar, 1)
        self._nlabel = arguments.whole("nlabels", nlabels, 1)
        self._unary: np.ndarray | None = None  # (C, N)
        self._potentials: list[PairwisePotential] = []
        self._field: MeanField | None = None  # of all potentials

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
        self._unary = u.energy

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
        points = arguments.array("features", features, np.float32, ("d", self._nvar))
        arguments.finite("features", points)
        factors = compatibility(compat, self._nlabel)
        self._add(LatticeKernel(len(points), lambda: points), factors, kernel, normalization)

    def inference(self, niter: int) -> np.ndarray:
        """The marginals (C, N) float32 after `niter` mean-field updates."""
        q = np.empty((self._nlabel, self._nvar), np.float32)
        steps = arguments.whole("niter", niter, 0)
        self._mean_field().update(self._energies(), q, steps, started=False)
        return q

    def startInference(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Q (C, N) before the first update, and two empty arrays, which `stepInference` ignores.

        As in pydensecrf, Q is zero where no unary energy has been set.
        """
        empty = np.empty((0, 0), np.float32)
        if self._unary is None:
            return np.zeros((self._nlabel, self._nvar), np.float32), empty, empty.copy()
        return DenseCRF.inference(self, 0), empty, empty.copy()

    def stepInference(self, Q: np.ndarray, tmp1: object = None, tmp2: object = None) -> None:
        """Update the marginals `Q (C, N)` float32 once, in place."""
        q = self._marginals(Q)
        if not q.flags.writeable:
            raise ValueError("Q: expected an array that can be written to")
        self._mean_field().update(self._energies(), q, 1, started=True)

    def klDivergence(self, Q: np.ndarray) -> float:
        """Sum of Q log Q, U Q and Q times the pairwise energies, for marginals `Q (C, N)` float32.

        It falls from update to update; its minimum over all Q is not 0.
        """
        q = self._marginals(Q)
        energy = np.log(np.maximum(q, np.float32(1e-20)))
        energy += self._energies()
        energy -= self._mean_field().messages(q)
        energy *= q
        return float(energy.sum(dtype=np.float64))

    def _mean_field(self) -> MeanField:
        if self._field is None:
            self._field = mean_field(self._potentials, self._nvar, self._nlabel)
        return self._field

    def _energies(self) -> np.ndarray:
        """The unary energies, (C, N)."""
        if self._unary is None:
            return np.zeros((self._nlabel, self._nvar), np.float32)
        return self._unary

    def _marginals(self, q: np.ndarray) -> np.ndarray:
        return arguments.view("Q", q, np.float32, (self._nlabel, self._nvar))

    def _add(
        self,
        kernel: LatticeKernel | SpatialKernel,
        compat: np.ndarray,
        kernel_type: int,
        normalization: int,
        plan: Mapping[str, object] | None = None,
    ) -> None:
        KernelType(kernel_type)
        self._potentials.append(
            PairwisePotential(kernel, compat, NormalizationType(normalization), plan)
        )
        self._field = None


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
        factors = compatibility(compat, self._nlabel)
        of_place: LatticeKernel | SpatialKernel = SpatialKernel(self._height, self._width, *sigmas)
        if normalization == NO_NORMALIZATION:
            of_place = LatticeKernel(2, partial(_features, self._height, self._width, sigmas))
        plan = None
        if _in_plans(factors, normalization, sigmas):
            plan = {"gaussian_sxy": sigmas[0], "gaussian_compat": potts_weight(factors)}
        self._add(of_place, factors, kernel, normalization, plan)

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
        factors = compatibility(compat, self._nlabel)
        plan = None
        if _in_plans(factors, normalization, place, colour):
            plan = {
                "image": torch.from_numpy(image),
                "bilateral_sxy": place[0],
                "bilateral_srgb": colour[0],
                "bilateral_compat": potts_weight(factors),
            }
        # Nothing that a potential holds may lead back to the CRF: a cycle would keep its plan, tens
        # of MB, until the garbage collector runs.
        of_colour = partial(_features, self._height, self._width, place + colour, image)
        self._add(LatticeKernel(5, of_colour), factors, kernel, normalization, plan)

    def inference(self, niter: int) -> np.ndarray:
        """The marginals (C, N) float32 after `niter` mean-field updates.

        One bilateral kernel, with or without one Gaussian, with numbers for `sxy` and `srgb`,
        Potts' model and the default normalisation, is left to `ops.DenseCrfPlan`, which is kept
        for the next call.
        """
        plan = self._find_plan()
        if plan is None:
            return super().inference(niter)
        steps = arguments.whole("niter", niter, 0)
        unary = self._energies().reshape(self._nlabel, self._height, self._width)
        return plan(torch.from_numpy(unary), iterations=steps).flatten(1).numpy()

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


def _features(
    height: int, width: int, sigmas: Sequence[float], image: np.ndarray | None = None
) -> np.ndarray:
    """(d, N) float32: x, y and the colours, each over its standard deviation."""
    y, x = np.indices((height, width), np.float32)
    colours = [] if image is None else list(np.moveaxis(image, 2, 0).astype(np.float32))
    rows = zip((x, y, *colours), sigmas, strict=True)
    return np.stack([(row / np.float32(sigma)).ravel() for row, sigma in rows])


def _in_plans(compat: np.ndarray, normalization: int, *sigmas: Sequence[float]) -> bool:
    """Whether `ops.DenseCrfPlan` has the kernel: Potts, symmetric, the same on all axes."""
    same = all(len(set(group)) == 1 for group in sigmas)
    return potts_weight(compat) is not None and normalization == NORMALIZE_SYMMETRIC and same
