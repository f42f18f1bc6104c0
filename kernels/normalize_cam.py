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
def quotient(
    value: tl.tensor,  # float32 or float64
    divisor: tl.tensor,  # of the same dtype
) -> tl.tensor:
    """Rounded to nearest, which `/` of float32 is not on a GPU: a quotient there may exceed 1."""
    return value / divisor if value.dtype == tl.float64 else tl.div_rn(value, divisor)


@triton.jit
def _divide(
    cam: tl.tensor,  # (K, pixels)
    maxima: tl.tensor,  # (K, parts)
    out: tl.tensor,  # (K, pixels); may be `cam`
    pixels: tl.tensor,
    parts: tl.tensor,
    eps: tl.constexpr,
    block_size: tl.constexpr,
    padded_parts: tl.constexpr,  # parts, rounded up to a power of 2
) -> None:
    """cam / (max(cam) + eps), paper Eq. 1."""
    k = tl.program_id(0).to(tl.int64)
    part = tl.arange(0, padded_parts)
    largest = tl.max(tl.load(maxima + k * parts + part, mask=part < parts, other=0.0), 0)
    offsets = tl.program_id(1) * block_size + tl.arange(0, block_size)
    inside = offsets < pixels
    values = tl.load(cam + k * pixels + offsets, mask=inside).to(largest.dtype)
    normalized = quotient(values, largest + eps)
    tl.store(out + k * pixels + offsets, normalized.to(out.dtype.element_ty), mask=inside)


def normalize_cam(cam: Tensor, eps: float) -> Tensor:
    """`cam (K,H,W)`, contiguous, not empty -> (K,H,W) of its dtype."""
    count, pixels = cam.shape[0], cam.shape[1] * cam.shape[2]
    blocks = triton.cdiv(pixels, BLOCK)
    dtype = torch.float64 if cam.dtype == torch.float64 else torch.float32
    maxima = torch.empty(count, blocks, dtype=dtype, device=cam.device)
    out = torch.empty_like(cam)
    _block_maximum[count, blocks](cam, maxima, pixels, blocks, block_size=BLOCK)
    divide(cam, maxima, out, eps)
    return out


def divide(cam: Tensor, maxima: Tensor, out: Tensor, eps: float) -> None:
    """`cam (K,H,W)` over the largest of its `maxima (K,...)` plus `eps`, to `out`; contiguous."""
    count, pixels = cam.shape[0], cam.shape[1] * cam.shape[2]
    parts = maxima.numel() // count
    _divide[count, triton.cdiv(pixels, BLOCK)](
        cam,
        maxima,
        out,
        pixels,
        parts,
        eps=eps,
        block_size=BLOCK,
        padded_parts=triton.next_power_of_2(parts),
    )
