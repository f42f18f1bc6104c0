"""94 x 125 strided CAMs of 3 classes (a 375 x 500 image), 256 steps, both methods."""

from collections.abc import Iterator
from functools import partial

import torch

from benchmarks.ops import providers
from benchmarks.runner import Case, best_device
from c2am.ops import random_walk


def cases() -> Iterator[Case]:
    device = best_device()
    generator = torch.Generator().manual_seed(0)
    cam = torch.rand(3, 94, 125, generator=generator).to(device)
    edge = (torch.rand(94, 125, generator=generator) ** 4).to(device)
    calls = {
        f"{method} {name}": call
        for method in ("chebyshev", "power")
        for name, call in providers(
            "random_walk", partial(random_walk, cam, edge, method=method), device
        ).items()
    }
    yield Case("3x94x125", calls)
