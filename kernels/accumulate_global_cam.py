"""Sum of the maps of each class, resized and normalised on the way.

Two kernels: the maxima of the resized maps, tile by tile, and their sums. A program owns a tile of
the total of a class, so nothing is added atomically, and resized maps are never stored. Maps of
classes out of range match no program, so `class_index` is no address and the host need not read it.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from c2am.kernels.bilinear import COLUMNS, ROWS, resized
from c2am.kernels.normalize_cam import quotient
from c2am.kernels.tuning import tuned


@triton.jit(do_not_specialize=["height", "width"])
def _tile_maxima(
    cam: tl.tensor,  # (K, height, width), at least 0
    maxima: tl.tensor,  # (K, row tiles, column tiles)
    height: tl.tensor,
    width: tl.tensor,
    side: tl.tensor,
    row_block: tl.constexpr,
    column_block: tl.constexpr,
) -> None:
    """Maximum of each tile of each map, resized to side x side; infinity where it has a NaN."""
    k = tl.program_id(0).to(tl.int64)
    row = tl.program_id(1) * row_block + tl.arange(0, row_block)
    column = tl.program_id(2) * column_block + tl.arange(0, column_block)
    inside = (row < side)[:, None] & (column < side)[None, :]
    dtype: tl.constexpr = maxima.dtype.element_ty
    source = cam + k * height * width
    values = resized(source, height, width, row, column, side, side, inside, dtype)
    # A NaN compares as no maximum: as infinity it keeps its map from being skipped as all zero.
    values = tl.where(values == values, values, float("inf"))
    largest = tl.max(tl.max(tl.where(inside, values, 0.0), 1), 0)
    tile = tl.program_id(1) * tl.num_programs(2) + tl.program_id(2)
    tl.store(maxima + k * tl.num_programs(1) * tl.num_programs(2) + tile, largest)


@tuned(
    triton.Config({}, num_warps=4),
    triton.Config({}, num_warps=8),
    key=["normalize"],
    restore_value=["total", "count"],
)
@triton.jit(do_not_specialize=["maps", "height", "width"])
def _accumulate(
    cam: tl.tensor,  # (K, height, width)
    maxima: tl.tensor,  # (K, tiles)
    class_index: tl.tensor,  # (K,)
    total: tl.tensor,  # (Z, side, side)
    count: tl.tensor,  # (Z,)
    maps: tl.tensor,  # K
    height: tl.tensor,
    width: tl.tensor,
    side: tl.tensor,
    shift: tl.constexpr,
    normalize: tl.constexpr,
    eps: tl.constexpr,
    row_block: tl.constexpr,
    column_block: tl.constexpr,
    padded_tiles: tl.constexpr,  # tiles, rounded up to a power of 2
) -> None:
    """total_z += sum of the maps of class z, count_z += their number (paper, Eq. 2)."""
    z = tl.program_id(0).to(tl.int64)
    row = tl.program_id(1) * row_block + tl.arange(0, row_block)
    column = tl.program_id(2) * column_block + tl.arange(0, column_block)
    inside = (row < side)[:, None] & (column < side)[None, :]
    tiles = tl.num_programs(1) * tl.num_programs(2)
    tile = tl.arange(0, padded_tiles)
    dtype: tl.constexpr = maxima.dtype.element_ty
    slots = total + z * side * side + row[:, None] * side + column[None, :]
    running = tl.load(slots, mask=inside, other=0.0)
    found = 0
    source = cam
    parts = maxima
    k = 0
    while k < maps:
        if tl.load(class_index + k) == z:
            largest = tl.max(tl.load(parts + tile, mask=tile < tiles, other=0.0), 0)
            if largest > 0:
                values = resized(source, height, width, row, column, side, side, inside, dtype)
                if normalize:
                    values = quotient(values, largest + eps)
                # Adding and taking away `shift` rounds to its last place; 0 rounds nothing.
                running += (values.to(running.dtype) + shift) - shift
                found += 1
        source += height * width
        parts += tiles
        k += 1
    if found > 0:
        tl.store(slots, running, mask=inside)
        if tl.program_id(1) + tl.program_id(2) == 0:
            tl.store(count + z, tl.load(count + z) + found)


def accumulate_global_cam(
    total: Tensor,
    count: Tensor,
    cam: Tensor,
    class_index: Tensor,
    *,
    shift: float,
    normalize: bool,
    eps: float,
) -> None:
    """In place, all contiguous: `total (Z,S,S)`, `count (Z,)`, `cam (K,h,w)`, `class_index (K,)`.

    Maps of other classes than 0..Z-1 are skipped. Values are rounded by adding and subtracting
    `shift`, before that with `normalize` divided by the maximum of their resized map plus `eps`.
    """
    classes, side, _ = total.shape
    maps, height, width = cam.shape
    tiles = triton.cdiv(side, ROWS), triton.cdiv(side, COLUMNS)
    dtype = torch.float64 if cam.dtype == torch.float64 else torch.float32
    maxima = torch.empty(maps, *tiles, dtype=dtype, device=cam.device)
    blocks = {"row_block": ROWS, "column_block": COLUMNS}
    _tile_maxima[(maps, *tiles)](cam, maxima, height, width, side, **blocks)
    _accumulate[(classes, *tiles)](
        cam,
        maxima,
        class_index,
        total,
        count,
        maps,
        height,
        width,
        side,
        shift=shift,
        normalize=normalize,
        eps=eps,
        padded_tiles=triton.next_power_of_2(tiles[0] * tiles[1]),
        **blocks,
    )
