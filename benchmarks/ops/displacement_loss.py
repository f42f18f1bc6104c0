"""Forward and backward on the displacement fields of a training batch (crop 512), radius 10.

The batch is 4 images, on a GPU also 32.
"""

from collections.abc import Iterator
from functools import partial

import torch

from benchmarks import gather
from benchmarks.ops import providers
from benchmarks.pairs import count_pairs
from benchmarks.runner import Case, Work, best_device
from c2am.ops import displacement_loss


def _forward_backward(field: torch.Tensor, label: torch.Tensor, *, backend: str) -> None:
    field.grad = None
    displacement_loss(field, label, radius=10, backend=backend).total.backward()


def cases() -> Iterator[Case]:
    device = best_device()
    generator = torch.Generator().manual_seed(0)
    for batch in (4, 32) if device.type == "cuda" else (4,):
        field = torch.randn(batch, 2, 128, 128, generator=generator).to(device).requires_grad_()
        label = torch.randint(0, 3, (batch, 128, 128), generator=generator).to(device)
        call = partial(_forward_backward, field, label)
        ours = providers("displacement_loss", call, device)
        pairs = gather.Pairs((128, 128), 10, device)
        arguments = (field, label, pairs.source, pairs.target, pairs.steps)
        ours |= gather.providers(gather.displacement_loss, *arguments)
        work = {
            "native": partial(_work, field, 3 + 4 + 2 * 4 + 4 + 2),
            "triton": partial(_work, field, 3 + 2 + 3 + 4 + 4 + 2),
        }
        yield Case(f"{batch}x2x128x128 r10", ours, work=work)


def _work(field: torch.Tensor, values: int) -> Work:
    """One step visits every pair from either end: it reads the two components and the labels and
    writes both components of two gradients, which the next divides and backward merges.

    The Triton kernels write one pair of slopes, of which the next makes those of two gradients.

    An end takes two operations with the labels and of each component three for the error, two for
    its magnitude and four for its sign.
    """
    batch, _, height, width = field.shape
    pairs = count_pairs(height, width, 10)
    pixels = batch * height * width
    return Work(
        bytes=4.0 * pixels * values,
        flops=2.0 * batch * pairs.total * (2 + 2 * 9) + 4.0 * pixels,
    )
