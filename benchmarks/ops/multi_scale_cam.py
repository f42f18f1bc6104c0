"""The maps of two 375 x 500 images, three labels each, at the scales of VOC; on a GPU also of 16.

As stage `cam` merges them: strided by 4, and at full resolution. `scale by scale` resizes and adds
the maps of each scale with PyTorch, to one size and then to the other, and normalises both with
`normalize_cam`.
"""

from collections.abc import Iterator
from functools import partial

import torch

from benchmarks.ops import compiled, providers, reference
from benchmarks.runner import Case, Work, best_device
from c2am.ops import multi_scale_cam, normalize_cam
from c2am.ops.bilinear import resize

OP = "multi_scale_cam"
SIZE, STRIDED, ROUNDED_UP = (375, 500), (94, 125), (384, 512)
SCALES = ((24, 32), (12, 16), (36, 47), (47, 63))  # 1, 0.5, 1.5 and 2 at output stride 16


def cases() -> Iterator[Case]:
    device = best_device()
    generator = torch.Generator().manual_seed(0)
    for images in (2, 16) if device.type == "cuda" else (2,):
        maps = [torch.rand(3 * images, *size, generator=generator).to(device) for size in SCALES]
        call = partial(multi_scale_cam, maps, SIZE)
        work = partial(_work, maps)
        yield Case(
            f"{3 * images} maps of 4 scales to 94x125 and {SIZE[0]}x{SIZE[1]}",
            providers(OP, call, device)
            | {"scale by scale": partial(_scale_by_scale, maps)}
            | compiled(reference(OP, device), maps, SIZE, 4, 16, 1e-5),
            work={"native": work, "triton": work},
        )


def _scale_by_scale(maps: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    strided, high_res = (
        sum((resize(each, size) for each in maps[1:]), start=resize(maps[0], size))
        for size in (STRIDED, ROUNDED_UP)
    )
    return normalize_cam(strided), normalize_cam(high_res[:, : SIZE[0], : SIZE[1]])


def _work(maps: list[torch.Tensor]) -> Work:
    """Maps are read for each of two outputs, whose sums are written, read and divided."""
    height, width = SIZE
    pixels = len(maps[0]) * (height * width + -(-height // 4) * -(-width // 4))
    read = 2 * sum(each.numel() for each in maps)
    return Work(bytes=4.0 * (read + 3 * pixels), flops=(10.0 * len(maps) + 2) * pixels)
