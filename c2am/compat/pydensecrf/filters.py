"""Gaussian filters on values (N, C): sum over j of exp(-|f_i - f_j|^2 / 2) times those of pixel j.

The labels of a pixel are adjacent, as the compiled lattice has them.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from c2am.ops.permutohedral import PermutohedralLattice

Filter = Callable[[Tensor], Tensor]
"""(N, C) -> (N, C), float32."""

_LEAST_BLOCK = 32


def lattice_filter(features: np.ndarray) -> Filter:
    """The filter of pixels with `features (d, N)` float32 on the permutohedral lattice."""
    lattice = PermutohedralLattice(torch.from_numpy(features.T))
    return lambda values: lattice.filter(values.T).T


def spatial_filter(height: int, width: int, sx: float, sy: float) -> Filter:
    """The filter of the positions of an image's pixels, exact: one Gaussian per axis."""
    across, down = _taps(sx, width), _taps(sy, height)

    def filtered(values: Tensor) -> Tensor:
        rows = _correlate(values.reshape(height, width, -1), across)
        return _correlate(rows.reshape(1, height, -1), down).reshape(values.shape)

    return filtered


def _taps(sigma: float, extent: int) -> Tensor:
    """A Gaussian at -r..r, as far as float32 tells it from 0 and a side of `extent` reaches."""
    reach = sigma * math.sqrt(-2 * math.log(torch.finfo(torch.float32).eps))
    radius = min(int(reach), extent - 1)
    at = torch.arange(-radius, radius + 1, dtype=torch.float64) / sigma
    return torch.exp(-0.5 * at**2).float()


def _correlate(values: Tensor, taps: Tensor) -> Tensor:
    """`values (A, L, R)` correlated with `taps (2 r + 1,)` along L; 0 outside.

    A block of outputs is one product of a band matrix with the block and r rows on either side.
    """
    length, radius = values.shape[1], len(taps) // 2
    block = max(2 * radius, _LEAST_BLOCK)
    rows = torch.arange(block)[:, None]
    band = taps.new_zeros(block, block + 2 * radius)
    band.scatter_(1, rows + torch.arange(len(taps)), taps.expand(block, -1))
    padded = pad(values, (0, 0, radius, radius + -length % block))
    windows = padded.unfold(1, block + 2 * radius, block)  # (A, blocks, R, block + 2 r)
    return (band @ windows.transpose(2, 3)).flatten(1, 2)[:, :length]
