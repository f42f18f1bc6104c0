"""Unary energies as pydensecrf passes them."""

import numpy as np

from c2am.compat.pydensecrf import arguments

_RULED_OUT = np.float32(1e30)
"""Energy that stands for infinity: its label's marginal is 0."""


class Unary:
    """Unary energies for `DenseCRF.setUnary`; `energy` is (C, N) float32, finite."""

    def __init__(self, energy: np.ndarray) -> None:
        self.energy = energy


class ConstUnary(Unary):
    """Energies `u (C, N)` float32; +infinity rules a label out."""

    def __init__(self, u: np.ndarray) -> None:
        energy = arguments.array("u", u, np.float32, ("C", "N"))
        if np.isnan(energy).any() or np.isneginf(energy).any():
            raise ValueError("u: has NaN or -infinity, expected energies -log p")
        super().__init__(np.minimum(energy, _RULED_OUT))


class LogisticUnary(Unary):
    """Energies L f, of weights `L (C, k)` and features `f (k, N)`, both float32."""

    def __init__(self, L: np.ndarray, f: np.ndarray) -> None:
        weights = arguments.finite("L", arguments.array("L", L, np.float32, ("C", "k")))
        features = arguments.array("f", f, np.float32, (weights.shape[1], "N"))
        super().__init__(weights @ arguments.finite("f", features))
