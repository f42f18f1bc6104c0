"""Maps of several scales merged at two resolutions: sums and maxima in one kernel, then quotients.

A program writes a tile of one of the two outputs from the maps of all scales and raises the maximum
of its map, so that normalising takes one more read. For K maps of p_s pixels at scale s, and P
pixels of both outputs together (1.06 H W), in 4 bytes each

    bytes  4 K (3 sum_s p_s + 3 P)
    FLOPs  (10 S + 2) K P for S scales

so 48 maps of 375 x 500 images at 4 scales are 9.6 million pixels: 118 MB, 35 us at 3.35 TB/s, of
which the second kernel finds a part in the second-level cache, and 0.4 GFLOP, with 16 loads per
pixel from the first-level cache, where a program's part of the maps (1.1 MB in all) stays.
"""

from collections.abc import Sequence
from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from c2am.kernels import normalize_cam
from c2am.kernels.bilinear import TILES, resized
from c2am.kernels.tuning import tuned


@tuned(*TILES)
@triton.jit(
    do_not_specialize=["scales", "count", "height", "width", "high", "wide", "rows", "columns"]
)
def _sum_scales(
    maps: tl.tensor,  # those of the scales one after the other, each (K, height, width)
    table: tl.tensor,  # (scales, 3) int32: pixels of the scales before, height, width
    strided: tl.tensor,  # (K, height, width)
    high_res: tl.tensor,  # (K, rows, columns), of a map of high x wide
    maxima: tl.tensor,  # (2, K), zeroed
    scales: tl.tensor,
    count: tl.tensor,  # K
    height: tl.tensor,
    width: tl.tensor,
    high: tl.tensor,
    wide: tl.tensor,
    rows: tl.tensor,
    columns: tl.tensor,
    row_block: tl.constexpr,
    column_block: tl.constexpr,
) -> None:
    """sum_s resize(M_s) in a tile of `strided` or `high_res`, and its maximum."""
    tile = tl.program_id(0)  # of which there may be more than 65535
    k = tl.program_id(1).to(tl.int64)
    before = tl.cdiv(height, row_block) * tl.cdiv(width, column_block)
    fine = tile >= before
    tile -= tl.where(fine, before, 0)
    tiles = tl.cdiv(tl.where(fine, columns, width), column_block)
    row = tile // tiles * row_block + tl.arange(0, row_block)
    column = tile % tiles * column_block + tl.arange(0, column_block)
    inside = (row < tl.where(fine, rows, height))[:, None]
    inside = inside & (column < tl.where(fine, columns, width))[None, :]
    dtype: tl.constexpr = maps.dtype.element_ty
    total = tl.zeros((row_block, column_block), dtype)
    scale = 0
    while scale < scales:
        of_scale = table + 3 * scale
        h, w = tl.load(of_scale + 1), tl.load(of_scale + 2)
        source = maps + tl.load(of_scale).to(tl.int64) * count + k * h * w
        out_height, out_width = tl.where(fine, high, height), tl.where(fine, wide, width)
        total += resized(source, h, w, row, column, out_height, out_width, inside, dtype)
        scale += 1
    if fine:
        out = high_res + k * rows * columns + row[:, None] * columns + column[None, :]
    else:
        out = strided + k * height * width + row[:, None] * width + column[None, :]
    tl.store(out, total, mask=inside)
    # The maximum of floats is the same in any order.
    largest = tl.max(tl.max(tl.where(inside, total, 0.0), 1), 0)
    tl.atomic_max(maxima + fine.to(tl.int32) * count + k, largest, sem="relaxed")


@lru_cache(maxsize=4096)
def _table(sizes: tuple[tuple[int, int], ...]) -> Tensor:
    before, lines = 0, []
    for height, width in sizes:
        lines.append((before, height, width))
        before += height * width
    return torch.tensor(lines, dtype=torch.int32)


def multi_scale_cam(
    maps: Sequence[Tensor],
    strided: Tensor,
    high_res: Tensor,
    rounded: tuple[int, int],
    eps: float,
) -> None:
    """Write `strided (K,h,w)` and `high_res (K,H,W)`, contiguous, from `maps`, each (K,h_s,w_s).

    All of one dtype, float32 or float64, and not empty. The high resolution maps are the upper left
    part of maps of the size `rounded`.
    """
    count = len(strided)
    sizes = tuple((each.shape[1], each.shape[2]) for each in maps)
    maxima = strided.new_zeros(2, count)

    def grid(meta: dict[str, int]) -> tuple[int, int]:
        tiles = (
            triton.cdiv(out.shape[1], meta["row_block"])
            * triton.cdiv(out.shape[2], meta["column_block"])
            for out in (strided, high_res)
        )
        return sum(tiles), count

    _sum_scales[grid](
        torch.cat([each.reshape(-1) for each in maps]),
        # Copied for each call: another stream might read one copy before it is there.
        _table(sizes).to(strided.device, non_blocking=True),
        strided,
        high_res,
        maxima,
        len(maps),
        count,
        *strided.shape[1:],
        *rounded,
        *high_res.shape[1:],
    )
    for out, largest in zip((strided, high_res), maxima, strict=True):
        normalize_cam.divide(out, largest, out, eps)
