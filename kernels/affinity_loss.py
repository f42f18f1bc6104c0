"""Cross-entropies of pixel pairs: pairs are counted at the pixel of their maximum, then weighed.

The loss of a pair hangs on its kind and on the edge at one pixel alone. So the pairs of each kind
are counted at that pixel, as integers, whose sums do not depend on the order of the additions, and
loss and gradient follow from the counts, a value per pixel and kind. For B maps of H W pixels the
memory is 3 B H W int32 (and the gradients, 3 B H W), 12 MB in all at 32 x 128 x 128. Three kernels
count, sum and differentiate; they read and write edges, labels, counts and gradients 76 bytes per
pixel, 40 MB or 12 us at 3.35 TB/s, so that the time is that of B N M comparisons (980 per source at
radius 10), on values that stay in the first-level cache, and of the additions to the counts.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from c2am.kernels.pairs import SOURCE, extend_maximum, offset, sources
from c2am.kernels.tuning import tuned

BLOCK = 256
EPS = tl.constexpr(1e-5)
KINDS = tl.constexpr(3)  # fg_positive, bg_positive, negative


@tuned(
    triton.Config({"block_size": BLOCK}, num_warps=4),
    triton.Config({"block_size": BLOCK}, num_warps=8),
    triton.Config({"block_size": 128}, num_warps=4),
    triton.Config({"block_size": 512}, num_warps=8),
    key=["displacements"],
    reset_to_zero=["counts"],
)
@triton.jit
def _count_pairs(
    edge: tl.tensor,  # (B, height, width)
    label: tl.tensor,  # (B, height, width), -1 for void
    counts: tl.tensor,  # (B, 3, height, width) int32, zeroed
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
    """counts[kind][arg-max of the path] += 1 for every pair of a block of sources.

    Equal places of successive pairs are added at once.
    """
    image = tl.program_id(1).to(tl.int64) * height * width
    _, place, exists = sources(tl.program_id(0), rows, columns, width, margin, block_size)
    start = edge + image + place
    targets = label + image + place
    slots = counts + KINDS * image
    own = tl.load(start, mask=exists, other=0.0)
    source = tl.load(targets, mask=exists, other=-1.0)
    largest = own
    nearest = tl.full((block_size,), SOURCE, tl.int32)
    pending = tl.zeros((block_size,), tl.int32)  # pairs to be added at `slot`
    slot = tl.zeros((block_size,), tl.int32)
    for visit in range(displacements):
        row = visits + 4 * visit
        restart = tl.load(row + 2) == 1
        largest = tl.where(restart, own, largest)
        nearest = tl.where(restart, SOURCE, nearest)
        largest, nearest = extend_maximum(
            largest, nearest, start, exists, pixels, tl.load(row), tl.load(row + 4), width
        )
        target = tl.load(targets + offset(tl.load(row + 3), width), mask=exists, other=-1.0)
        known = (source >= 0) & (target >= 0)
        kind = tl.where(source != target, 2, tl.where(source > 0, 0, 1))
        there = kind * height * width + place + offset(nearest, width)
        moves = known & (there != slot)
        tl.atomic_add(slots + slot, pending, mask=moves & (pending > 0), sem="relaxed")
        pending = tl.where(moves, 0, pending) + known.to(tl.int32)
        slot = tl.where(moves, there, slot)
    tl.atomic_add(slots + slot, pending, mask=pending > 0, sem="relaxed")


@triton.jit
def _likelihood(edge: tl.tensor, kind: tl.constexpr) -> tl.tensor:
    """m + e of a negative pair, 1 - m + e of a positive one; float64."""
    m = edge.to(tl.float64)
    return (m if kind == 2 else 1 - m) + EPS


@triton.jit
def _sum_pairs(
    edge: tl.tensor,  # (B, area)
    counts: tl.tensor,  # (B, 3, area)
    parts: tl.tensor,  # (6, blocks) float64: pairs of each kind, their losses
    total: tl.tensor,  # B * area
    area: tl.tensor,
    blocks: tl.tensor,
    block_size: tl.constexpr,
) -> None:
    """Number and -log(likelihood) of the pairs of a block of pixels."""
    block = tl.program_id(0)
    pixel = block.to(tl.int64) * block_size + tl.arange(0, block_size)
    inside = pixel < total
    value = tl.load(edge + pixel, mask=inside, other=0.5)
    first = pixel // area * (KINDS * area) + pixel % area
    for kind in tl.static_range(KINDS):
        pairs = tl.load(counts + first + kind * area, mask=inside, other=0).to(tl.float64)
        loss = -pairs * tl.log(_likelihood(value, kind))
        tl.store(parts + kind * blocks + block, tl.sum(pairs, 0))
        tl.store(parts + (KINDS + kind) * blocks + block, tl.sum(loss, 0))


@triton.jit(do_not_specialize=["total"])
def _gradients(
    edge: tl.tensor,  # (B, area)
    counts: tl.tensor,  # (B, 3, area)
    sums: tl.tensor,  # (6,) float64, of `parts`
    gradients: tl.tensor,  # (3, B, area)
    total: tl.tensor,  # B * area
    area: tl.tensor,
    block_size: tl.constexpr,
) -> None:
    """d(-log(1 - m + e))/dm = 1 / (1 - m + e), d(-log(m + e))/dm = -1 / (m + e), over pairs + e."""
    pixel = tl.program_id(0).to(tl.int64) * block_size + tl.arange(0, block_size)
    inside = pixel < total
    value = tl.load(edge + pixel, mask=inside, other=0.5)
    first = pixel // area * (KINDS * area) + pixel % area
    for kind in tl.static_range(KINDS):
        pairs = tl.load(counts + first + kind * area, mask=inside, other=0).to(tl.float64)
        weight = (-1.0 if kind == 2 else 1.0) / (tl.load(sums + kind) + EPS)
        slope = weight * pairs / _likelihood(value, kind)
        out = gradients + kind * total.to(tl.int64) + pixel
        tl.store(out, slope.to(gradients.dtype.element_ty), mask=inside)


def affinity_loss(
    edge: Tensor, label: Tensor, visits: Tensor, pixels: Tensor, margin: int, gradient: bool
) -> tuple[Tensor, Tensor]:
    """`edge (B,H,W)`, `label (B,H,W)` of its dtype, contiguous, with a source at least.

    Returns the losses (3,) and their gradients (3,B,H,W), or an empty tensor; the same to the last
    bit in every run.
    """
    batch, height, width = edge.shape
    rows, columns = height - margin, width - 2 * margin
    counts = torch.zeros(batch, 3, height, width, dtype=torch.int32, device=edge.device)

    def grid(meta: dict[str, int]) -> tuple[int, int]:
        return triton.cdiv(rows * columns, meta["block_size"]), batch

    _count_pairs[grid](
        edge,
        label,
        counts,
        visits,
        pixels,
        height,
        width,
        rows,
        columns,
        margin,
        displacements=len(visits) - 1,
    )
    total, area = edge.numel(), height * width
    blocks = triton.cdiv(total, BLOCK)
    parts = torch.empty(6, blocks, dtype=torch.float64, device=edge.device)
    _sum_pairs[blocks,](edge, counts, parts, total, area, blocks, block_size=BLOCK)
    sums = parts.sum(1)
    losses = (sums[3:] / (sums[:3] + EPS.value)).to(edge.dtype)
    gradients = edge.new_empty((3, *edge.shape) if gradient else 0)
    if gradient:
        _gradients[blocks,](edge, counts, sums, gradients, total, area, block_size=BLOCK)
    return losses, gradients
