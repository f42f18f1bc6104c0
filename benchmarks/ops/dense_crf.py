"""375 x 500 pixels, 10 iterations: the labels of IRN (3) and the test of DeepLabV2 (21)."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from benchmarks.ops import providers
from benchmarks.runner import Case, best_device
from c2am.ops import dense_crf, unary_from_labels


def smooth_image(height: int, width: int, device: torch.device) -> torch.Tensor:
    """An image whose lattice is as full as a photograph's: smooth shading, edges, a little noise.

    Returns (H,W,3) uint8.
    """
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, 9, 12, generator=generator) * 200
    image = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")[0]
    image = image + 8 * torch.randn(3, height, width, generator=generator)
    return image.clamp(0, 255).to(torch.uint8).permute(1, 2, 0).contiguous().to(device)


def cases() -> Iterator[Case]:
    device = best_device()
    image = smooth_image(375, 500, device)
    generator = torch.Generator().manual_seed(1)
    settings: tuple[tuple[int, dict[str, Any]], ...] = (
        (3, {}),
        (21, {"gaussian_sxy": 1.0, "bilateral_sxy": 67.0, "bilateral_srgb": 3.0}),
    )
    for labels, parameters in settings:
        coarse = torch.randint(0, labels, (1, 1, 8, 10), generator=generator).float()
        map_ = torch.nn.functional.interpolate(coarse, (375, 500))[0, 0].long().to(device)
        unary = unary_from_labels(map_, labels, 0.7)
        call = partial(dense_crf, image, unary, **parameters)
        yield Case(f"375x500x{labels}", providers("dense_crf", call, device))
