"""Forward and backward on the boundary maps of a training batch (crop 512), radius 10."""

from collections.abc import Iterator
from functools import partial

import torch

from benchmarks.ops import providers
from benchmarks.runner import Case, best_device
from c2am.ops import affinity_loss


def _forward_backward(edge: torch.Tensor, label: torch.Tensor, *, backend: str) -> None:
    edge.grad = None
    affinity_loss(edge, label, radius=10, num_classes=21, backend=backend).total.backward()


def cases() -> Iterator[Case]:
    device = best_device()
    generator = torch.Generator().manual_seed(0)
    edge = torch.rand(4, 1, 128, 128, generator=generator).to(device).requires_grad_()
    label = torch.randint(0, 3, (4, 128, 128), generator=generator).to(device)
    call = partial(_forward_backward, edge, label)
    yield Case("4x1x128x128 r10", providers("affinity_loss", call, device))
