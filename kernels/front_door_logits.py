"""Pooled product of a probability and a class's Global CAM: one program per image and class."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from c2am.kernels.tuning import tuned

BLOCK = 1024
WARPS = tuple(triton.Config({}, num_warps=number) for number in (4, 8, 16))


@triton.jit
def pool(
    p: tl.tensor,  # float64
    values: tl.tensor,  # (pixels,), the Global CAM of the class
    pixels: tl.constexpr,
    pooling: tl.constexpr,
    block_size: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor]:
    """Pool(p g) and its slope by p; float64, in which log(mean) close to 0 keeps its digits."""
    offsets = tl.arange(0, block_size)
    total = tl.zeros((block_size,), tl.float64)
    low = tl.full((block_size,), float("inf"), tl.float64)
    high = tl.full((block_size,), float("-inf"), tl.float64)
    for start in range(0, pixels, block_size):
        inside = start + offsets < pixels
        g = tl.load(values + start + offsets, mask=inside, other=0.0).to(tl.float64)
        total += g
        low = tl.minimum(low, tl.where(inside, g, float("inf")))
        high = tl.maximum(high, tl.where(inside, g, float("-inf")))
    steepest = tl.where(p >= 0, tl.max(high, 0), tl.min(low, 0))
    if pooling == "mean":
        slope = tl.sum(total, 0) / pixels
        pooled = p * slope
    elif pooling == "max":
        slope = steepest
        pooled = p * slope
    else:
        largest = p * steepest
        mass = tl.zeros((block_size,), tl.float64)
        moment = tl.zeros((block_size,), tl.float64)
        for start in range(0, pixels, block_size):
            inside = start + offsets < pixels
            g = tl.load(values + start + offsets, mask=inside, other=0.0).to(tl.float64)
            weight = tl.where(inside, tl.exp(p * g - largest), 0.0)
            mass += weight
            moment += weight * g
        slope = tl.sum(moment, 0) / tl.sum(mass, 0)
        pooled = largest + tl.log(tl.sum(mass, 0) / pixels)
    return pooled, slope


@tuned(*WARPS, key=["pooling"])
@triton.jit
def _pool(
    p_values: tl.tensor,  # (B, classes)
    global_cam: tl.tensor,  # (classes, pixels)
    score: tl.tensor,  # (B, classes)
    slope: tl.tensor,  # (B, classes)
    classes: tl.tensor,
    pixels: tl.constexpr,
    pooling: tl.constexpr,
    block_size: tl.constexpr,
) -> None:
    """s_z = Pool(p g_z), paper Eq. 3, and ds_z/dp."""
    row = tl.program_id(0)
    p = tl.load(p_values + row).to(tl.float64)
    values = global_cam + (row % classes).to(tl.int64) * pixels
    pooled, gradient = pool(p, values, pixels, pooling, block_size)
    tl.store(score + row, pooled.to(score.dtype.element_ty))
    tl.store(slope + row, gradient.to(slope.dtype.element_ty))


def front_door_logits(p: Tensor, global_cam: Tensor, pooling: str) -> tuple[Tensor, Tensor]:
    """`p (B,Z)`, `global_cam (Z,N)`, contiguous, not empty -> score and ds/dp, (B,Z) each."""
    score, slope = torch.empty_like(p), torch.empty_like(p)
    classes, pixels = global_cam.shape
    _pool[(p.numel(),)](
        p, global_cam, score, slope, classes, pixels=pixels, pooling=pooling, block_size=BLOCK
    )
    return score, slope
