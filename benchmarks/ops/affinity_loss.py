"""Forward and backward on the boundary maps of a training batch (crop 512), radius 10.

The batch is 4 images, on a GPU also 32.
"""

from collections.abc import Iterator
from functools import partial

import torch

from benchmarks import gather
from benchmarks.ops import providers
from benchmarks.pairs import count_pairs
from benchmarks.runner import Case, Work, best_device
from c2am.ops import affinity_loss


def _forward_backward(edge: torch.Tensor, label: torch.Tensor, *, backend: str) -> None:
    edge.grad = None
    affinity_loss(edge, label, radius=10, num_classes=21, backend=backend).total.backward()


def cases() -> Iterator[Case]:
    device = best_device()
    generator = torch.Generator().manual_seed(0)
    for batch in (4, 32) if device.type == "cuda" else (4,):
        edge = torch.rand(batch, 1, 128, 128, generator=generator).to(device).requires_grad_()
        label = torch.randint(0, 3, (batch, 128, 128), generator=generator).to(device)
        call = partial(_forward_backward, edge, label)
        ours = providers("affinity_loss", call, device)
        pairs = gather.Pairs((128, 128), 10, device)
        arguments = (edge, label, pairs.source, pairs.paths, pairs.target)
        ours |= gather.providers(gather.affinity_loss, *arguments)
        work = {"native": partial(_work, edge, 4), "triton": partial(_work, edge, 3)}
        yield Case(f"{batch}x1x128x128 r10", ours, work=work)


def _work(edge: torch.Tensor, kinds: int) -> Work:
    """Pairs are counted by their kind (three, natively void too) and the pixel of their maximum;
    the losses and gradients of the three are sums over pixels.

    Counting reads edge and label and writes the counts; losses and gradients read edge and three
    counts each; three gradients are written, read and merged. A path is compared along, a pair
    compared and counted; a pixel takes of each kind a logarithm (16), a quotient and four others.
    """
    batch, _, height, width = edge.shape
    pairs = count_pairs(height, width, 10)
    return Work(
        bytes=4.0 * edge.numel() * (2 + kinds + 2 * (1 + 3) + 3 + 3 + 1),
        flops=batch * (pairs.steps + 2.0 * pairs.total) + 3 * 21.0 * edge.numel(),
    )
