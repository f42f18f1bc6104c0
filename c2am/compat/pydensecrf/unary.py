"""Unary energies as pydensecrf passes them."""

import numpy as np

from c2am.compat.pydensecrf import arguments

_INFINITE = np.float32(1e30)
_RULED_OUT = np.float32(1000)
"""How far above another label's an energy is at most: enough for a marginal of 0, and not so much
that the differences of energies, which are what is computed with, lose their digits."""


class Unary:
    """Unary energies for `DenseCRF.setUnary`; `energy` is (C, N) float32, finite."""

    def __init__(self, energy: np.ndarray) -> None:
        self.energy = energy


class ConstUnary(Unary):
    """Energies `u (C, N)` float32; +infinity rules a label out."""

    def __init__(self, u: np.ndarray) -> None:
        energy = arguments.view("u", u, np.float32, ("C", "N"))
        if not energy.min(initial=0) > -np.inf:  # NaN neither
            raise ValueError("u: has NaN or -infinity, expected energies -log p")
        finite = np.minimum(energy, _INFINITE)
        super().__init__(np.minimum(finite, finite.min(0, initial=_INFINITE) + _RULED_OUT))


class LogisticUnary(Unary):
    """Energies L f, of weights `L (C, k)` and features `f (k, N)`, both float32."""

    def __init__(self, L: np.ndarray, f: np.ndarray) -> None:
        weights = arguments.finite("L", arguments.array("L", L, np.float32, ("C", "k")))
        features = arguments.array("f", f, np.float32, (weights.shape[1], "N"))
        super().__init__(weights @ arguments.finite("f", features))
