"""CAMs of three classes of an image, strided by 4 and at full resolution, and a batch of maps."""

from collections.abc import Iterator
from functools import partial

import torch

from benchmarks.ops import compiled, providers, reference
from benchmarks.runner import Case, best_device
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
            yield Case(name, ours | compiled(reference(OP, device), cam, 1e-5))
