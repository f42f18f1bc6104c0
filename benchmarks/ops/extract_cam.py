"""A batch of four 375 x 500 images at output stride 16, three classes each."""

from collections.abc import Iterator
from functools import partial

import torch

from benchmarks.ops import providers
from benchmarks.runner import Case, best_device
from c2am.ops import extract_cam


def cases() -> Iterator[Case]:
    device = best_device()
    generator = torch.Generator().manual_seed(0)
    features = torch.rand(4, 2, 2048, 24, 32, generator=generator).to(device)
    weight = torch.randn(20, 2048, generator=generator).to(device)
    present = torch.zeros(4, 20, dtype=torch.bool, device=device)
    present[:, :3] = True
    call = partial(extract_cam, features, weight, present, (94, 125))
    yield Case("4x2x2048x24x32", providers("extract_cam", call, device))
