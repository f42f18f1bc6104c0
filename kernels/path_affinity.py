"""Affinities of pixel pairs and their gradient, one program per image and block of sources.

For a map (B, H, W), P displacements and N sources per image the affinities are written once:
B P N elements are the floor (4 x 152 x 13090 float32: 32 MB, 10 us at 3.35 TB/s), to which M
comparisons per source come (`PathChains`), on values that stay in the first-level cache: a block
of sources and the paths from it touch 10 rows of the map at radius 10.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from c2am.kernels.pairs import SOURCE, extend_maximum, offset, sources

BLOCK = 256
SUM_BITS = 62
"""Gradients are summed as integers whose sum has at most this many bits."""


@triton.jit
def _affinities(
    edge: tl.tensor,  # (B, height, width)
    affinity: tl.tensor,  # (B, displacements, rows * columns)
    visits: tl.tensor,
    pixels: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    rows: tl.tensor,
    columns: tl.tensor,
    margin: tl.tensor,
    displacements: tl.constexpr,
    block_size: tl.constexpr,
) -> None:
    """a_ij = 1 - max of the path from i to j."""
    image = tl.program_id(1).to(tl.int64)
    number, place, exists = sources(tl.program_id(0), rows, columns, width, margin, block_size)
    start = edge + image * height * width + place
    own = tl.load(start, mask=exists, other=0.0)
    largest = own
    for visit in range(displacements):
        row = visits + 4 * visit
        largest = tl.where(tl.load(row + 2) == 1, own, largest)
        k, last = tl.load(row), tl.load(row + 4)
        while k < last:
            step = offset(tl.load(pixels + k), width)
            candidate = tl.load(start + step, mask=exists, other=0.0)
            largest = tl.maximum(largest, candidate, propagate_nan=tl.PropagateNan.ALL)
            k += 1
        out = affinity + (image * displacements + tl.load(row + 1)) * (rows * columns) + number
        tl.store(out, (1 - largest).to(affinity.dtype.element_ty), mask=exists)


@triton.jit
def _route_gradients(
    grad: tl.tensor,  # (B, displacements, rows * columns)
    edge: tl.tensor,  # (B, height, width)
    sums: tl.tensor,  # (B, height, width) int64, zeroed
    scale: tl.tensor,  # (1,) float64
    visits: tl.tensor,
    pixels: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    rows: tl.tensor,
    columns: tl.tensor,
    margin: tl.tensor,
    displacements: tl.constexpr,
    block_size: tl.constexpr,
) -> None:
    """Each pair's gradient to the pixel of its maximum: integers, so in any order the same."""
    image = tl.program_id(1).to(tl.int64)
    number, place, exists = sources(tl.program_id(0), rows, columns, width, margin, block_size)
    start = edge + image * height * width + place
    own = tl.load(start, mask=exists, other=0.0)
    largest = own
    nearest = tl.full((block_size,), SOURCE, tl.int32)
    factor = tl.load(scale)
    for visit in range(displacements):
        row = visits + 4 * visit
        restart = tl.load(row + 2) == 1
        largest = tl.where(restart, own, largest)
        nearest = tl.where(restart, SOURCE, nearest)
        largest, nearest = extend_maximum(
            largest, nearest, start, exists, pixels, tl.load(row), tl.load(row + 4), width
        )
        share = grad + (image * displacements + tl.load(row + 1)) * (rows * columns) + number
        value = tl.load(share, mask=exists, other=0.0).to(tl.float64) * factor
        target = sums + image * height * width + place + offset(nearest, width)
        tl.atomic_add(target, value.to(tl.int64), mask=exists, sem="relaxed")


def path_affinity(
    edge: Tensor, affinity: Tensor, visits: Tensor, pixels: Tensor, margin: int
) -> None:
    """`edge (B,H,W)` -> `affinity (B,P,N)`, contiguous, not empty."""
    rows, columns = edge.shape[1] - margin, edge.shape[2] - 2 * margin
    grid = (triton.cdiv(rows * columns, BLOCK), len(edge))
    _affinities[grid](
        edge,
        affinity,
        visits,
        pixels,
        edge.shape[1],
        edge.shape[2],
        rows,
        columns,
        margin,
        displacements=len(visits) - 1,
        block_size=BLOCK,
    )


def path_affinity_backward(
    grad: Tensor, edge: Tensor, visits: Tensor, pixels: Tensor, margin: int, terms: int
) -> Tensor:
    """`grad (B,P,N)`, `edge (B,H,W)`, contiguous, not empty -> (B,H,W) of the dtype of `edge`.

    At most `terms` paths go through a pixel. The same to the last bit in every run: values are
    rounded to an integer of 62 bits less those of `terms` (50 at radius 10); a `grad` that is not
    finite makes all of the result NaN.
    """
    rows, columns = edge.shape[1] - margin, edge.shape[2] - 2 * margin
    low, high = grad.aminmax()  # the absolute values would be as large as `grad`
    largest = torch.maximum(-low, high).double()
    # A power of 2, so that scaling rounds nothing; clamped where it would not be a float64.
    exponent = torch.frexp(largest).exponent.clamp(min=-900).double()
    scale = torch.exp2(SUM_BITS - terms.bit_length() - exponent)
    sums = torch.zeros(edge.shape, dtype=torch.int64, device=edge.device)
    grid = (triton.cdiv(rows * columns, BLOCK), len(edge))
    _route_gradients[grid](
        grad,
        edge,
        sums,
        scale.view(1),
        visits,
        pixels,
        edge.shape[1],
        edge.shape[2],
        rows,
        columns,
        margin,
        displacements=len(visits) - 1,
        block_size=BLOCK,
    )
    nan_if_not_finite = largest - largest
    return (sums.double() / -scale + nan_if_not_finite).to(edge.dtype)
