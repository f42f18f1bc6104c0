"""What the kernels over pairs of pixels share: see `c2am.ops.paths.PathChains` for the tables."""

import triton
import triton.language as tl

SOURCE = tl.constexpr(512)
"""The code of the pixel (0, 0)."""


@triton.jit
def offset(
    code: tl.tensor,  # int32, a pixel of a path as in `PathChains`
    width: tl.tensor,
) -> tl.tensor:
    """The pixel's place in a flattened map of that width, from the source."""
    return ((code >> 10) & 1023) * width + (code & 1023) - 512


@triton.jit
def sources(
    block: tl.tensor,
    rows: tl.tensor,
    columns: tl.tensor,
    width: tl.tensor,
    margin: tl.tensor,
    block_size: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """Sources of a block, in row-major order: their numbers, places in the map, and which exist."""
    number = block * block_size + tl.arange(0, block_size)
    place = (number // columns) * width + margin + number % columns
    return number, place, number < rows * columns


@triton.jit
def extend_maximum(
    largest: tl.tensor,
    nearest: tl.tensor,  # int32, code of the pixel of `largest`
    edge: tl.tensor,  # pointers to the sources in the map
    exists: tl.tensor,
    pixels: tl.tensor,  # codes
    first: tl.tensor,
    last: tl.tensor,
    width: tl.tensor,
) -> tuple[tl.tensor, tl.tensor]:
    """The maximum with the pixels first..last-1 too; among equal ones the nearest to the source."""
    k = first
    while k < last:  # the interpreter has no `range` of loaded numbers
        code = tl.load(pixels + k)
        candidate = tl.load(edge + offset(code, width), mask=exists, other=0.0)
        rises = (candidate > largest) | ((candidate == largest) & (code < nearest))
        largest = tl.where(rises, candidate, largest)
        nearest = tl.where(rises, code, nearest)
        k += 1
    return largest, nearest
