"""Bilinear resize (`align_corners=False`) in tiles, for the kernels that read resized maps."""

import triton
import triton.language as tl

ROWS, COLUMNS = 8, 64
TILES = (
    triton.Config({"row_block": ROWS, "column_block": COLUMNS}, num_warps=4),
    triton.Config({"row_block": 4, "column_block": 128}, num_warps=4),
    triton.Config({"row_block": 16, "column_block": 64}, num_warps=8),
)
"""Of kernels that write a resized map."""


@triton.jit
def _neighbours(
    index: tl.tensor,
    size: tl.tensor,
    out_size: tl.tensor,
    dtype: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """The two pixels nearest to a resized one, and the share of the second; in whole numbers.

    Its centre is (index + 1/2) size / out_size - 1/2, clamped to the map.
    """
    numerator = tl.maximum((2 * index + 1) * size - out_size, 0)
    low = numerator // (2 * out_size)
    # A size of 1 is a Python integer here, which knows no `to`: the division converts it.
    share = (numerator - low * (2 * out_size)).to(dtype) / (2 * out_size)
    return low, tl.minimum(low + 1, size - 1), share


@triton.jit
def resized(
    source: tl.tensor,  # (height, width), the map
    height: tl.tensor,
    width: tl.tensor,
    row: tl.tensor,  # (rows,), of the tile
    column: tl.tensor,  # (columns,)
    out_height: tl.tensor,
    out_width: tl.tensor,
    inside: tl.tensor,  # (rows, columns), which pixels of the tile exist
    dtype: tl.constexpr,
) -> tl.tensor:
    """A tile (rows, columns) of the map resized to out_height x out_width, computed in `dtype`."""
    y0, y1, v = _neighbours(row, height, out_height, dtype)
    x0, x1, u = _neighbours(column, width, out_width, dtype)
    upper = source + (y0 * width)[:, None]
    lower = source + (y1 * width)[:, None]
    left = tl.load(upper + x0[None, :], mask=inside, other=0.0).to(dtype) * (1 - v)[:, None]
    left += tl.load(lower + x0[None, :], mask=inside, other=0.0).to(dtype) * v[:, None]
    right = tl.load(upper + x1[None, :], mask=inside, other=0.0).to(dtype) * (1 - v)[:, None]
    right += tl.load(lower + x1[None, :], mask=inside, other=0.0).to(dtype) * v[:, None]
    return left * (1 - u)[None, :] + right * u[None, :]
