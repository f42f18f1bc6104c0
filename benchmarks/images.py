"""The images that the benchmarks compute on."""

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor


def photograph(path: Path, height: int, width: int, device: torch.device) -> Tensor:
    """The middle of a photograph, in the shape wanted: (H,W,3) uint8."""
    with Image.open(path) as file:
        image = file.convert("RGB")
    scale = min(image.width / width, image.height / height)
    crop_width, crop_height = scale * width, scale * height
    left, top = (image.width - crop_width) / 2, (image.height - crop_height) / 2
    box = (left, top, left + crop_width, top + crop_height)
    resized = image.resize((width, height), Image.Resampling.BICUBIC, box=box)
    return pil_to_tensor(resized).permute(1, 2, 0).contiguous().to(device)


def drawn(height: int, width: int, device: torch.device) -> Tensor:
    """An image whose lattice is as full as a photograph's: smooth shading, edges, a little noise.

    Returns (H,W,3) uint8.
    """
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, 9, 12, generator=generator) * 200
    image = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")[0]
    image = image + 8 * torch.randn(3, height, width, generator=generator)
    return image.clamp(0, 255).to(torch.uint8).permute(1, 2, 0).contiguous().to(device)
