"""Label maps of 375 x 500 images from maps of 3 classes, alone and with the walk before.

`native walk` is `random_walk_labels`: on a GPU nothing but labels leaves it.
"""

from collections.abc import Iterator
from functools import partial

import torch

from benchmarks.ops import providers
from benchmarks.runner import Case, Work, best_device
from c2am.ops import label_maps, random_walk_labels

OP = "label_maps"
SIZE, STRIDED, MAPS = (375, 500), (94, 125), 3


def cases() -> Iterator[Case]:
    device = best_device()
    for images in (1, 64) if device.type == "cuda" else (4,):
        generator = torch.Generator().manual_seed(0)
        maps = [torch.rand(MAPS, *STRIDED, generator=generator).to(device) for _ in range(images)]
        edges = [torch.rand(*STRIDED, generator=generator).to(device) ** 4 for _ in range(images)]
        classes, sizes = [torch.arange(MAPS)] * images, [SIZE] * images
        call = partial(label_maps, maps, classes, sizes, threshold=0.5)
        ours = providers(OP, call, device)
        walk = partial(random_walk_labels, maps, edges, classes, sizes, threshold=0.5)
        ours["native walk"] = partial(walk, backend="native")
        name = f"{images} of {MAPS}x{STRIDED[0]}x{STRIDED[1]} to {SIZE[0]}x{SIZE[1]}"
        yield Case(name, ours, work={"native": partial(_work, images)})


def _work(images: int) -> Work:
    """Maps are read for their maximum and for the labels, which are written.

    For each pixel of a map: resizing (10 operations) and a comparison, twice, and a quotient.
    """
    pixels, strided = SIZE[0] * SIZE[1], STRIDED[0] * STRIDED[1]
    return Work(
        bytes=images * (2 * 4.0 * MAPS * strided + pixels), flops=23.0 * images * MAPS * pixels
    )
