"""Each map over its maximum: two passes without atomics, so that the result is deterministic."""

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024


@triton.jit
def _block_maximum(
    cam: tl.tensor,  # (K, pixels)
    maxima: tl.tensor,  # (K, blocks)
    pixels: tl.tensor,
    blocks: tl.tensor,
    block_size: tl.constexpr,
) -> None:
    """Maximum of each block of pixels."""
    k = tl.program_id(0).to(tl.int64)
    block = tl.program_id(1)
    offsets = block * block_size + tl.arange(0, block_size)
    # The maps are at least 0, so 0 is neutral.
    values = tl.load(cam + k * pixels + offsets, mask=offsets < pixels, other=0.0)
    tl.store(maxima + k * blocks + block, tl.max(values, 0))


@triton.jit
def _divide(
    cam: tl.tensor,  # (K, pixels)
    maxima: tl.tensor,  # (K, blocks)
    out: tl.tensor,  # (K, pixels)
    pixels: tl.tensor,
    blocks: tl.tensor,
    eps: tl.constexpr,
    block_size: tl.constexpr,
    padded_blocks: tl.constexpr,  # blocks, rounded up to a power of 2
) -> None:
    """cam / (max(cam) + eps), paper Eq. 1."""
    k = tl.program_id(0).to(tl.int64)
    index = tl.arange(0, padded_blocks)
    parts = tl.load(maxima + k * blocks + index, mask=index < blocks, other=0.0)
    offsets = tl.program_id(1) * block_size + tl.arange(0, block_size)
    inside = offsets < pixels
    values = tl.load(cam + k * pixels + offsets, mask=inside).to(parts.dtype)
    normalized = values / (tl.max(parts, 0) + eps)
    tl.store(out + k * pixels + offsets, normalized.to(out.dtype.element_ty), mask=inside)


def normalize_cam(cam: Tensor, eps: float) -> Tensor:
    """`cam (K,H,W)`, contiguous, not empty -> (K,H,W) of its dtype."""
    count, pixels = cam.shape[0], cam.shape[1] * cam.shape[2]
    blocks = triton.cdiv(pixels, BLOCK)
    dtype = torch.float64 if cam.dtype == torch.float64 else torch.float32
    maxima = torch.empty(count, blocks, dtype=dtype, device=cam.device)
    out = torch.empty_like(cam)
    grid = (count, blocks)
    padded = triton.next_power_of_2(blocks)
    _block_maximum[grid](cam, maxima, pixels, blocks, block_size=BLOCK)
    _divide[grid](cam, maxima, out, pixels, blocks, eps=eps, block_size=BLOCK, padded_blocks=padded)
    return out
