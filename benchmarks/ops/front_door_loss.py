"""Forward and backward of a training batch of 16 with a Global CAM of 20 classes, 128 x 128.

Compiled, the reference gives loss and gradient in one call.
"""

from collections.abc import Iterator
from functools import partial

import torch

from benchmarks.ops import compiled, providers, reference
from benchmarks.ops.front_door_logits import front_door_work
from benchmarks.runner import Case, best_device
from c2am.ops import front_door_loss

OP = "front_door_loss"


def _forward_backward(
    logits: torch.Tensor,
    labels: torch.Tensor,
    global_cam: torch.Tensor,
    pooling: str,
    *,
    backend: str,
) -> None:
    logits.grad = None
    front_door_loss(logits, labels, global_cam, pooling=pooling, backend=backend).backward()


def cases() -> Iterator[Case]:
    device = best_device()
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(16, 20, generator=generator).to(device).requires_grad_()
    labels = (torch.rand(16, 20, generator=generator) > 0.9).float().to(device)
    global_cam = torch.rand(20, 128, 128, generator=generator).to(device)
    for pooling in ("mean", "max", "lse"):
        call = partial(_forward_backward, logits, labels, global_cam, pooling)
        arguments = (logits.detach(), labels, global_cam, pooling, 1.0, "logit")
        ours = providers(OP, call, device) | compiled(reference(OP, device), *arguments)
        work = front_door_work(len(logits), global_cam, pooling)
        yield Case(f"16x20, 20x128x128 {pooling}", ours, work=work)
