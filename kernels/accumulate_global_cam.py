"""Sum of the maps of each class: a program owns its pixels, so nothing is added atomically."""

import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024


@triton.jit
def _accumulate(
    total: tl.tensor,  # (Z, pixels)
    count: tl.tensor,  # (Z,)
    cam: tl.tensor,  # (maps, pixels)
    class_index: tl.tensor,  # (maps,), -1 to skip the map
    maps: tl.tensor,
    pixels: tl.tensor,
    shift: tl.constexpr,
    block_size: tl.constexpr,
    padded_maps: tl.constexpr,  # maps, rounded up to a power of 2
) -> None:
    """total_z += sum of the maps of class z, count_z += their number (paper, Eq. 2)."""
    z = tl.program_id(0)
    block = tl.program_id(1)
    offsets = block * block_size + tl.arange(0, block_size)
    inside = offsets < pixels
    slots = total + z.to(tl.int64) * pixels + offsets
    running = tl.load(slots, mask=inside, other=0.0)
    found = tl.zeros((1,), tl.int64)
    row = cam + offsets
    for k in range(padded_maps):
        chosen = tl.load(class_index + k, mask=k < maps, other=-1) == z
        values = tl.load(row, mask=inside & chosen, other=0.0).to(running.dtype)
        # Adding and taking away `shift` rounds to its last place; 0 rounds nothing.
        running += (values + shift) - shift
        found += chosen.to(tl.int64)
        row += pixels
    tl.store(slots, running, mask=inside)
    slot = count + z + tl.arange(0, 1)
    first = (tl.arange(0, 1) + block) == 0
    tl.store(slot, tl.load(slot, mask=first) + found, mask=first)


def accumulate_global_cam(
    total: Tensor, count: Tensor, cam: Tensor, class_index: Tensor, shift: float
) -> None:
    """In place, all contiguous: `total (Z,S,S)`, `count (Z,)`, `cam (K,S,S)`, `class_index (K,)`.

    Maps of class -1 are skipped. Values are rounded by adding and subtracting `shift`.
    """
    classes, height, width = total.shape
    pixels, maps = height * width, len(cam)
    grid = (classes, triton.cdiv(pixels, BLOCK))
    padded = triton.next_power_of_2(maps)
    _accumulate[grid](
        total,
        count,
        cam,
        class_index,
        maps,
        pixels,
        shift=shift,
        block_size=BLOCK,
        padded_maps=padded,
    )
