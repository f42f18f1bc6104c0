"""Class activation maps of a ragged batch: two kernels, products and resize.

The first reads the features of an image and its mirror once and computes the maps of up to 16 of
the image's classes at their resolution; the second resizes them and writes or adds the result. For
B images with V views of C channels and h w pixels, in elements of s bytes, and K maps of H W pixels

    bytes  s B V C h w + 4 (2 K h w + K H W), or 4 (2 K h w + 2 K H W) where it adds
    FLOPs  2 V K C h w + 9 K H W, or 10 K H W

so 16 images with V = 2, C = 2048, h w = 24 x 32 in bfloat16 are 101 MB of features: 30 us at
3.35 TB/s. The matrix units multiply for 16 classes of an image where it has fewer, three times
where the sums are float32: 4.8 GFLOP. The maps at the resolution of the features (0.2 MB) stay in
the second-level cache.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from c2am.kernels.bilinear import TILES, resized
from c2am.kernels.tuning import tuned

SLOTS = 16  # classes of an image in one program: the least that a matrix instruction takes
# In one matrix product, in all configurations. Tensor cores round towards zero; sums of so many
# channels each are then added with rounding to nearest.
CHANNELS = 64


@tuned(
    triton.Config({"pixel_block": 32}, num_warps=4, num_stages=3),
    triton.Config({"pixel_block": 32}, num_warps=2, num_stages=4),
    triton.Config({"pixel_block": 16}, num_warps=2, num_stages=4),
    triton.Config({"pixel_block": 64}, num_warps=4, num_stages=3),
    key=["channels", "pixel_stride"],
)
@triton.jit(do_not_specialize=["height", "width"])
def _class_maps(
    features: tl.tensor,  # (B, views, channels, height * width)
    weight: tl.tensor,  # (Z, channels)
    class_index: tl.tensor,  # (K,) int64
    ends: tl.tensor,  # (B,) int64, where the maps of each image end
    maps: tl.tensor,  # (K, height * width)
    image_stride: tl.tensor,
    view_stride: tl.tensor,
    channel_stride: tl.tensor,
    pixel_stride: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    channels: tl.constexpr,
    flip: tl.constexpr,
    precision: tl.constexpr,
    slots: tl.constexpr,
    channel_block: tl.constexpr,
    pixel_block: tl.constexpr,
) -> None:
    """relu(w_z . f) + mirror(relu(w_z . f')) of some classes of an image, at a block of pixels."""
    image = tl.program_id(1)
    last = tl.load(ends + image)
    first = tl.load(ends + image - 1, mask=image > 0, other=0) + tl.program_id(2) * slots
    if first < last:
        area = height * width
        k = first + tl.arange(0, slots)
        exists = k < last
        rows = weight + tl.load(class_index + k, mask=exists, other=0)[:, None] * channels
        pixel = tl.program_id(0) * pixel_block + tl.arange(0, pixel_block)
        inside = pixel < area
        mirrored = pixel + width - 1 - 2 * (pixel % width)
        view = features + image.to(tl.int64) * image_stride
        mirror = view + view_stride
        dtype = maps.dtype.element_ty
        here = tl.zeros((slots, pixel_block), dtype)
        there = tl.zeros((slots, pixel_block), dtype)
        for start in range(0, channels, channel_block):
            c = start + tl.arange(0, channel_block)
            known = c < channels
            w = tl.load(rows + c[None, :], mask=exists[:, None] & known[None, :], other=0.0)
            w = w.to(dtype)
            mask = known[:, None] & inside[None, :]
            channel = c[:, None] * channel_stride
            f = tl.load(view + channel + pixel[None, :] * pixel_stride, mask=mask, other=0.0)
            here = tl.dot(w, f.to(dtype), here, input_precision=precision, out_dtype=dtype)
            if flip:
                f = tl.load(mirror + channel + mirrored[None, :] * pixel_stride, mask, 0.0)
                there = tl.dot(w, f.to(dtype), there, input_precision=precision, out_dtype=dtype)
        cam = tl.maximum(here, 0.0, propagate_nan=tl.PropagateNan.ALL)
        if flip:
            cam += tl.maximum(there, 0.0, propagate_nan=tl.PropagateNan.ALL)
        out = maps + k[:, None] * area + pixel[None, :]
        tl.store(out, cam, mask=exists[:, None] & inside[None, :])


@tuned(*TILES, key=["add"], restore_value=["out"])
@triton.jit(do_not_specialize=["height", "width", "out_height", "out_width"])
def _resize(
    maps: tl.tensor,  # (K, height, width)
    out: tl.tensor,  # (K, out_height, out_width)
    height: tl.tensor,
    width: tl.tensor,
    out_height: tl.tensor,
    out_width: tl.tensor,
    add: tl.constexpr,
    row_block: tl.constexpr,
    column_block: tl.constexpr,
) -> None:
    """Bilinear, `align_corners=False`."""
    k = tl.program_id(0).to(tl.int64)
    row = tl.program_id(1) * row_block + tl.arange(0, row_block)
    column = tl.program_id(2) * column_block + tl.arange(0, column_block)
    inside = (row < out_height)[:, None] & (column < out_width)[None, :]
    source = maps + k * height * width
    dtype: tl.constexpr = maps.dtype.element_ty
    value = resized(source, height, width, row, column, out_height, out_width, inside, dtype)
    slots = out + k * out_height * out_width + row[:, None] * out_width + column[None, :]
    if add:
        value += tl.load(slots, mask=inside, other=0.0)
    tl.store(slots, value, mask=inside)


def class_maps(features: Tensor, weight: Tensor, present: Tensor, pairs: Tensor) -> Tensor:
    """`features (B,V,C,h,w)` whose pixels have one stride, `weight (Z,C)` contiguous.

    `pairs (K,2)` are the places of `present (B,Z)`, one at least; both may be on the CPU. Returns
    (K,h,w) float32 (float64 for float64).
    """
    batch, views, channels, height, width = features.shape
    wide = torch.float64 if features.dtype == torch.float64 else torch.float32
    maps = torch.empty(len(pairs), height, width, dtype=wide, device=features.device)

    def grid(meta: dict[str, int]) -> tuple[int, int, int]:
        pixels = triton.cdiv(height * width, meta["pixel_block"])
        return pixels, batch, triton.cdiv(len(weight), SLOTS)

    _class_maps[grid](
        features,
        weight,
        pairs[:, 1].contiguous().to(features.device, non_blocking=True),
        present.sum(1).cumsum(0).to(features.device, non_blocking=True),
        maps,
        *features.stride()[:3],
        features.stride(4),
        height,
        width,
        channels=channels,
        flip=views == 2,
        # Three products of TF32 parts keep the digits of float32.
        precision="ieee" if wide == torch.float64 else "tf32x3",
        slots=SLOTS,
        channel_block=CHANNELS,
    )
    return maps


def resize(maps: Tensor, out: Tensor, *, add: bool) -> None:
    """Write `maps (K,h,w)`, resized, to `out (K,H,W)`, or add them; contiguous, not empty."""
    count, height, width = out.shape

    def grid(meta: dict[str, int]) -> tuple[int, int, int]:
        rows, columns = meta["row_block"], meta["column_block"]
        return count, triton.cdiv(height, rows), triton.cdiv(width, columns)

    _resize[grid](maps, out, *maps.shape[1:], height, width, add=add)
