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
from c2am.ops import path_affinity
from c2am.ops.paths import path_chains


def _forward_backward(edge: torch.Tensor, weight: torch.Tensor, *, backend: str) -> None:
    edge.grad = None
    path_affinity(edge, radius=10, backend=backend).backward(weight)


def cases() -> Iterator[Case]:
    device = best_device()
    generator = torch.Generator().manual_seed(0)
    for batch in (4, 32) if device.type == "cuda" else (4,):
        edge = torch.rand(batch, 1, 128, 128, generator=generator).to(device).requires_grad_()
        weight = torch.randn(batch, 152, 119 * 110, generator=generator).to(device)
        call = partial(_forward_backward, edge, weight)
        ours = providers("path_affinity", call, device)
        pairs = gather.Pairs((128, 128), 10, device)
        arguments = (edge, pairs.source, pairs.paths)
        plain = gather.providers(gather.path_affinity, *arguments, grad=weight)
        work = {"native": partial(_work, edge), "triton": partial(_triton_work, edge)}
        yield Case(f"{batch}x1x128x128 r10", ours | plain, work=work)


def _work(edge: torch.Tensor) -> Work:
    """Forward reads the map and writes the affinities; backward reads the map and their gradients
    and writes that of the map.

    Either compares along every path; a pair takes a difference, and a sum backward.
    """
    batch, _, height, width = edge.shape
    pairs = count_pairs(height, width, 10)
    return Work(
        bytes=4.0 * (3 * edge.numel() + 2 * batch * pairs.total),
        flops=2.0 * batch * (pairs.steps + pairs.total),
    )


def _triton_work(edge: torch.Tensor) -> Work:
    """Backward also reads the gradients for their largest, and sets to 0, writes and reads sums of
    64 bits. Paths are extended along chains.
    """
    batch, _, height, width = edge.shape
    pairs = count_pairs(height, width, 10)
    sources = pairs.total // 152
    steps = sources * len(path_chains(10.0, torch.device("cpu")).pixels)
    return Work(
        bytes=4.0 * (3 * edge.numel() + 3 * batch * pairs.total) + 3 * 8.0 * edge.numel(),
        flops=2.0 * batch * (steps + pairs.total),
    )
