"""Two 375 x 500 images and their mirrors at output stride 16: at the resolution of the features, as
stage `cam` calls it, strided by 4, and at full resolution; features as convolutions leave them."""

from collections.abc import Iterator
from functools import partial

import torch

from benchmarks.ops import providers
from benchmarks.runner import Case, Work, best_device
from c2am.ops import extract_cam

LAYOUTS = {"NCHW": torch.contiguous_format, "NHWC": torch.channels_last}


def cases() -> Iterator[Case]:
    device = best_device()
    generator = torch.Generator().manual_seed(0)
    planar = torch.rand(4, 2048, 24, 32, generator=generator).to(device)
    weight = torch.randn(20, 2048, generator=generator).to(device)
    for dtype in (torch.float32, torch.bfloat16):
        for name, layout in LAYOUTS.items():
            features = planar.to(dtype).contiguous(memory_format=layout).unflatten(0, (2, 2))
            for count, size in ((1, (24, 32)), (2, (94, 125)), (3, (375, 500))):
                present = torch.zeros(2, 20, dtype=torch.bool, device=device)
                present[:, :count] = True
                call = partial(extract_cam, features, weight, present, size)
                shape = f"2x2x2048x24x32 {name} {str(dtype).removeprefix('torch.')}"
                yield Case(
                    f"{shape}, {count} to {size[0]}x{size[1]}",
                    providers("extract_cam", call, device),
                    work={"native": partial(_work, features, 2 * count, size)},
                )


def _work(features: torch.Tensor, maps: int, size: tuple[int, int]) -> Work:
    """The features are read once; maps at their resolution are written, read and resized."""
    channels, height, width = features.shape[2:]
    small, large = maps * height * width, maps * size[0] * size[1]
    products = 2.0 * 2 * maps * channels * height * width  # of both views
    return Work(
        bytes=features.numel() * features.element_size() + 4.0 * (2 * small + large),
        flops=products + 8.0 * large,
    )
