"""Forward and backward of a training batch of 16 with a Global CAM of 20 classes, 128 x 128.

The reference gives the slopes with the scores; compiled, they are computed and not used.
"""

from collections.abc import Callable, Iterator
from functools import partial

import torch

from benchmarks.ops import compiled, providers, reference
from benchmarks.runner import Case, Work, best_device
from c2am.ops import front_door_logits

OP = "front_door_logits"


def _forward_backward(
    logits: torch.Tensor, global_cam: torch.Tensor, pooling: str, *, backend: str
) -> None:
    logits.grad = None
    front_door_logits(logits, global_cam, pooling=pooling, backend=backend).sum().backward()


def cases() -> Iterator[Case]:
    device = best_device()
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(16, 20, generator=generator).to(device).requires_grad_()
    global_cam = torch.rand(20, 128, 128, generator=generator).to(device)
    for pooling in ("mean", "max", "lse"):
        call = partial(_forward_backward, logits, global_cam, pooling)
        arguments = (logits.detach(), global_cam, pooling, 1.0, "logit")
        ours = providers(OP, call, device) | compiled(reference(OP, device), *arguments)
        work = front_door_work(len(logits), global_cam, pooling)
        yield Case(f"16x20, 20x128x128 {pooling}", ours, work=work)


def front_door_work(
    images: int, global_cam: torch.Tensor, pooling: str
) -> dict[str, Callable[[], Work]]:
    """The Global CAM is read once for its sum, minimum and maximum, by the Triton kernels for every
    image, but from the cache; what is per image and class is not counted.

    lse reads it once more, and takes for every image and value a product, an exponential (16) and
    four operations of its sums.
    """

    def work(ranges: int) -> Work:
        values, exponentials = global_cam.numel(), images if pooling == "lse" else 0
        read = 2 if pooling == "lse" else 1
        return Work(bytes=read * 4.0 * values, flops=values * (3.0 * ranges + 21 * exponentials))

    return {"native": partial(work, 1), "triton": partial(work, images)}
