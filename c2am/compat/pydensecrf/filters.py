"""Gaussian filters on values (N, C): sum over j of exp(-|f_i - f_j|^2 / 2) times those of pixel j.

The labels of a pixel are adjacent, as the compiled lattice has them.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from c2am import ops
from c2am.ops.permutohedral import PermutohedralLattice

Filter = Callable[[Tensor], Tensor]
"""(N, C) -> (N, C), float32 and contiguous."""

_COMPILED_DIMENSIONS = 16
_LEAST_BLOCK = 32


def lattice_filter(features: np.ndarray) -> Filter:
    """The filter of pixels with `features (d, N)` float32 on the permutohedral lattice.

    The compiled core has it for 1 to 16 dimensions. More of them, or an installation without the
    core, take the lattice in PyTorch, which is the same one and slower.

    Raises:
        ValueError: the features are so many standard deviations wide that the core's keys overflow.
    """
    points = torch.from_numpy(features).T.contiguous()
    compiled = ops.backend_of("dense_crf", "cpu") == "native"
    if compiled and 1 <= len(features) <= _COMPILED_DIMENSIONS:
        return _compiled_filter(points)
    lattice = PermutohedralLattice(points)
    return lambda values: lattice.filter(values.T).T.contiguous()


def _compiled_filter(points: Tensor) -> Filter:
    from c2am import _core

    count, dimension = points.shape
    lattice = _core.LatticeFilter(points.data_ptr(), count, dimension, torch.get_num_threads())

    def filtered(values: Tensor) -> Tensor:
        out = torch.empty_like(values)
        ops.launches["lattice_filter", "native"] += 1
        threads = torch.get_num_threads()
        lattice.filter(values.data_ptr(), out.data_ptr(), values.shape[1], threads)
        return out

    return filtered


def spatial_filter(height: int, width: int, sx: float, sy: float) -> Filter:
    """The filter of the positions of an image's pixels, exact: one Gaussian per axis."""
    across, down = _taps(sx, width), _taps(sy, height)

    def filtered(values: Tensor) -> Tensor:
        columns = values.view(height, width, -1).transpose(0, 1).contiguous()
        rows = _correlate(columns.view(width, -1), across).view(columns.shape).transpose(0, 1)
        return _correlate(rows.reshape(height, -1), down).view(values.shape)

    return filtered


def _taps(sigma: float, extent: int) -> Tensor:
    """A Gaussian at -r..r, as far as float32 tells it from 0 and a side of `extent` reaches."""
    reach = sigma * math.sqrt(-2 * math.log(torch.finfo(torch.float32).eps))
    radius = min(int(reach), extent - 1)
    at = torch.arange(-radius, radius + 1, dtype=torch.float64) / sigma
    return torch.exp(-0.5 * at**2).float()


def _correlate(values: Tensor, taps: Tensor) -> Tensor:
    """`values (L, R)` correlated with `taps (2 r + 1,)` along L; 0 outside.

    A block of outputs is one product: of a band matrix with the block and r rows on either side.
    """
    length, radius = len(values), len(taps) // 2
    block = max(2 * radius, _LEAST_BLOCK)
    columns = torch.arange(block)[:, None] + torch.arange(len(taps))
    band = taps.new_zeros(block, block + 2 * radius).scatter_(1, columns, taps.expand(block, -1))
    out = torch.empty(values.shape)
    for start in range(0, length, block):
        stop = min(start + block, length)
        low, high = max(start - radius, 0), min(stop + radius, length)
        weights = band[: stop - start, low - start + radius : high - start + radius]
        torch.mm(weights, values[low:high], out=out[start:stop])
    return out
