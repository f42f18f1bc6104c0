"""The maps of one image and of a batch into the sums of 20 classes, 128 x 128.

Normalised maps of that size, and maps of 375 x 500 images at stride 4, as stage `global_cam` adds
them.
"""

from collections.abc import Iterator
from functools import partial

import torch

from benchmarks.ops import compiled, providers, reference
from benchmarks.runner import Case, Work, best_device
from c2am.ops import accumulate_global_cam

OP = "accumulate_global_cam"


def cases() -> Iterator[Case]:
    device = best_device()
    generator = torch.Generator().manual_seed(0)
    for count in (3, 24):
        total = torch.zeros(20, 128, 128, dtype=torch.float64, device=device)
        number = torch.zeros(20, dtype=torch.int64, device=device)
        class_index = torch.randint(0, 20, (count,), generator=generator).to(device)
        for size, normalize in (((128, 128), False), ((94, 125), True)):
            cam = torch.rand(count, *size, generator=generator).to(device)
            arguments = (total, number, cam, class_index)
            call = partial(accumulate_global_cam, *arguments, normalize=normalize)
            shape = f"{count}x{size[0]}x{size[1]}{' normalize' if normalize else ''} into 20"
            plain = compiled(reference(OP, device), *arguments, normalize)
            work = {
                "native": partial(_work, cam, normalize),
                "triton": partial(_triton_work, cam, len(class_index.unique())),
            }
            yield Case(shape, providers(OP, call, device) | plain, work=work)


def _work(cam: torch.Tensor, normalize: bool) -> Work:
    """Float32 maps into float64 sums: the check reads the maps, the sum reads them, and reads and
    writes the sums.

    A value takes three comparisons, two sums to round it and one to add it. With `normalize`, maps
    are read and checked, written at the size of the sums, read for their maxima, read and written.
    """
    values = len(cam) * 128 * 128
    work = Work(bytes=(2 * 4 + 2 * 8.0) * values, flops=6.0 * values)
    if not normalize:
        return work
    return Work(
        bytes=work.bytes + 4.0 * (2 * cam.numel() + 4 * values),
        flops=work.flops + 2.0 * cam.numel() + (9 + 2.0) * values,
    )


def _triton_work(cam: torch.Tensor, classes: int) -> Work:
    """The maps are read and resized twice, for their maxima and their sums; the sums of the classes
    that have maps are read and written."""
    values = len(cam) * 128 * 128
    return Work(
        bytes=2 * 4.0 * cam.numel() + 2 * 8.0 * classes * 128 * 128,
        flops=values * (2 * 9 + 1 + 5.0),
    )
