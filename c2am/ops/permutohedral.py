"""The permutohedral lattice (Adams et al. 2010) in plain PyTorch, for the reference of dense_crf.

A Gaussian filter in d dimensions: values are splatted onto the corners of the lattice simplex
around each point, blurred along the lattice's d + 1 axes, and sliced out again. Only vertices
that some point touches exist; the others count as 0, as in the code of Kraehenbuehl & Koltun.
"""

import math

import torch
from torch import Tensor


class PermutohedralLattice:
    """The filter of N points with `features (N, d)`, one standard deviation being 1.

    Positions are computed in float64 whatever is filtered: which vertices exist hangs on the
    last bit.
    """

    def __init__(self, features: Tensor) -> None:
        zero, rank, self.weight = _enclosing_simplex(_elevate(features.double()))
        points, axes = zero.shape
        step = torch.arange(axes, device=zero.device)[:, None]
        keys = zero[:, None] + torch.where(rank[:, None] < axes - step, step, step - axes)
        corner, self.vertices = _row_index(keys.flatten(0, 1))
        self.corner = corner.view(points, axes)  # (N, d + 1)
        vertex_keys = keys.new_empty(self.vertices, axes)
        vertex_keys[corner] = keys.flatten(0, 1)
        self.neighbours = _neighbours(vertex_keys)  # (d + 1, 2, M), M where there is none
        self.gain = 1 / (1 + 2.0 ** (1 - axes))

    def filter(self, values: Tensor) -> Tensor:
        """`values (C, N)` filtered: (C, N)."""
        weight = self.weight.to(values.dtype)
        # One more column stays 0 and stands for the missing neighbours.
        lattice = values.new_zeros(len(values), self.vertices + 1)
        splatted = values[:, :, None] * weight
        lattice.index_add_(1, self.corner.flatten(), splatted.flatten(1))
        for pair in self.neighbours:
            around = lattice[:, pair[0]] + lattice[:, pair[1]]
            lattice[:, :-1] = lattice[:, :-1] + around / 2
        return (lattice[:, self.corner] * weight).sum(-1) * self.gain


def _elevate(features: Tensor) -> Tensor:
    """Coordinates (N, d + 1), summing to 0, in which the blur has standard deviation 1."""
    d = features.shape[1]
    elevated = features.new_empty(len(features), d + 1)
    total = features.new_zeros(len(features))
    for j in range(d, 0, -1):
        scale = math.sqrt(2 / 3) * (d + 1) / math.sqrt(float(j * (j + 1)))
        value = features[:, j - 1] * scale
        elevated[:, j] = total - j * value
        total = total + value
    elevated[:, 0] = total
    return elevated


def _enclosing_simplex(elevated: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Corner 0 of the simplex (N, d+1), the rank of each coordinate, barycentric coordinates."""
    axes = elevated.shape[1]
    down = torch.floor(elevated / axes) * axes
    up = torch.ceil(elevated / axes) * axes
    zero = torch.where(up - elevated < elevated - down, up, down)
    order = torch.sort(elevated - zero, dim=1, descending=True, stable=True).indices
    # The rounded point may lie off the hyperplane of sum 0: walk back along the largest errors.
    rank = order.argsort(1) + (zero.sum(1, keepdim=True) / axes).long()
    wrap = torch.where(rank < 0, axes, torch.where(rank >= axes, -axes, 0))
    rank, zero = rank + wrap, zero + wrap
    falling = torch.empty_like(elevated).scatter_(1, rank, (elevated - zero) / axes)
    gaps = falling[:, :-1] - falling[:, 1:]
    weight = torch.cat([1 + falling[:, -1:] - falling[:, :1], gaps.flip(1)], 1)
    return zero.long(), rank, weight


def _neighbours(keys: Tensor) -> Tensor:
    """(d + 1, 2, M): the two neighbours along each axis of vertices with `keys (M, d + 1)`."""
    vertices, axes = keys.shape
    step = 1 - axes * torch.eye(axes, dtype=keys.dtype, device=keys.device)
    around = torch.stack([keys + step[:, None], keys - step[:, None]], 1)
    index, count = _row_index(torch.cat([keys, around.flatten(0, 2)]))
    vertex_of = torch.full((count,), vertices, device=keys.device)
    vertex_of[index[:vertices]] = torch.arange(vertices, device=keys.device)
    return vertex_of[index[vertices:]].view(axes, 2, vertices)


def _row_index(rows: Tensor) -> tuple[Tensor, int]:
    """A number for each row, equal for equal rows, and how many numbers there are.

    One column after the other, since all of them together need not fit into 64 bits.
    """
    index = torch.zeros(len(rows), dtype=torch.int64, device=rows.device)
    numbers = 1
    for column in rows.T:
        low, high = (int(bound) for bound in column.aminmax())
        joint = index * (high - low + 1) + (column - low)
        unique, index = torch.unique(joint, return_inverse=True)
        numbers = len(unique)
    return index, numbers
