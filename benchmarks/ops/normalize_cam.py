"""CAMs of three classes of an image, strided by 4 and at full resolution, and a batch of maps."""

from collections.abc import Iterator
from functools import partial

import torch

from benchmarks.ops import compiled, providers, reference
from benchmarks.runner import Case, Work, best_device
from c2am.ops import normalize_cam

OP = "normalize_cam"


def cases() -> Iterator[Case]:
    device = best_device()
    generator = torch.Generator().manual_seed(0)
    for shape in ((3, 94, 125), (3, 375, 500), (8, 128, 128)):
        for dtype in (torch.float32, torch.float16):
            cam = torch.rand(shape, generator=generator).to(device, dtype)
            name = f"{'x'.join(map(str, shape))} {str(dtype).removeprefix('torch.')}"
            ours = providers(OP, partial(normalize_cam, cam), device)
            ours |= compiled(reference(OP, device), cam, 1e-5)
            work = partial(_work, cam)
            yield Case(name, ours, work={"native": work, "triton": work})


def _work(cam: torch.Tensor) -> Work:
    """The maximum reads the maps, the division reads and writes them."""
    return Work(bytes=3.0 * cam.numel() * cam.element_size(), flops=2.0 * cam.numel())
