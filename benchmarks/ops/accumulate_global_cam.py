"""The maps of one image and of a batch, 128 x 128, into the sums of 20 classes."""

from collections.abc import Iterator
from functools import partial

import torch

from benchmarks.ops import providers
from benchmarks.runner import Case, best_device
from c2am.ops import accumulate_global_cam

OP = "accumulate_global_cam"


def cases() -> Iterator[Case]:
    device = best_device()
    generator = torch.Generator().manual_seed(0)
    for count in (3, 24):
        total = torch.zeros(20, 128, 128, dtype=torch.float64, device=device)
        number = torch.zeros(20, dtype=torch.int64, device=device)
        cam = torch.rand(count, 128, 128, generator=generator).to(device)
        class_index = torch.randint(0, 20, (count,), generator=generator).to(device)
        call = partial(accumulate_global_cam, total, number, cam, class_index)
        yield Case(f"{count}x128x128 into 20", providers(OP, call, device))
