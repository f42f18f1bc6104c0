"""The pair ops as IRN was released: all pixels of all paths are gathered, then compared.

Their references go through the displacements one by one to save memory; these are few operations
on large tensors, which `torch.compile` fuses.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import groupby

import torch
from torch import Tensor

from benchmarks.ops import compiled
from c2am.ops import path_offsets
from c2am.ops.paths import VOID, source_index

EPS = 1e-5


@dataclass(frozen=True)
class Pairs:
    """The pairs of an H x W map; displacements are ordered by the length of their paths."""

    size: tuple[int, int]
    radius: float
    device: torch.device

    @cached_property
    def source(self) -> Tensor:
        """(N,), places in a flattened map."""
        return source_index(torch.empty(1, *self.size, device=self.device), self.radius).flatten()

    @cached_property
    def paths(self) -> list[Tensor]:
        """(P_l, l) of each length l: places of the pixels of a path from its source."""
        ordered = sorted(path_offsets(self.radius), key=lambda path: len(path.pixels))
        width = self.size[1]
        return [
            torch.tensor([[y * width + x for y, x in path.pixels] for path in paths]).to(
                self.device
            )
            for _, paths in groupby(ordered, key=lambda path: len(path.pixels))
        ]

    @cached_property
    def steps(self) -> Tensor:
        """(P, 2), dy and dx of each displacement."""
        ordered = sorted(path_offsets(self.radius), key=lambda path: len(path.pixels))
        return torch.tensor([[path.dy, path.dx] for path in ordered], device=self.device)

    @cached_property
    def target(self) -> Tensor:
        """(P, N), places in a flattened map."""
        dy, dx = self.steps.T
        return (dy * self.size[1] + dx)[:, None] + self.source


def path_affinity(edge: Tensor, source: Tensor, paths: list[Tensor]) -> Tensor:
    """`edge (B,1,H,W)` -> (B,P,N)."""
    values = edge.flatten(1)
    # The gradient of `max` goes to one pixel; compiled, that of `amax` in `affinity_loss` is NaN.
    maxima = [values[:, pixels[:, :, None] + source].max(2).values for pixels in paths]
    return 1 - torch.cat(maxima, 1)


def affinity_loss(
    edge: Tensor, label: Tensor, source: Tensor, paths: list[Tensor], target: Tensor
) -> Tensor:
    """The total of `ops.affinity_loss`; `target (P,N)` are places as `source (N,)`."""
    affinity = path_affinity(edge, source, paths)
    here, there = label.flatten(1)[:, None, source], label.flatten(1)[:, target]
    known, same = (here != VOID) & (there != VOID), here == there
    positive, negative = -(affinity + EPS).log(), -(1 - affinity + EPS).log()
    fg, bg = (_mean(positive, known & same & kind) for kind in (here > 0, here == 0))
    return fg / 4 + bg / 4 + _mean(negative, known & ~same) / 2


def displacement_loss(
    field: Tensor, label: Tensor, source: Tensor, target: Tensor, steps: Tensor
) -> Tensor:
    """The total of `ops.displacement_loss`; `steps (P,2)` are target - source."""
    values = field.flatten(2)
    difference = values[:, :, None, source] - values[:, :, target]
    here, there = label.flatten(1)[:, None, source], label.flatten(1)[:, target]
    same = (here == there) & (here != VOID)
    errors = (difference - steps.T[:, :, None]).abs(), difference.abs()
    kinds = same & (here > 0), same & (here == 0)
    fg, bg = (
        _mean(error, kind[:, None].expand_as(error))
        for error, kind in zip(errors, kinds, strict=True)
    )
    return (fg + bg) / 2


def _mean(value: Tensor, mask: Tensor) -> Tensor:
    return (value * mask).sum() / (mask.sum() + EPS)


def providers(
    plain: Callable[..., Tensor], of: Tensor, *arguments: object, grad: Tensor | None = None
) -> dict[str, Callable[[], object]]:
    """Forward and backward of one of these functions by `of`, as it is and compiled."""
    found = {"gathered reference": plain} | compiled(plain)
    return {name: partial(_step, each, of, arguments, grad) for name, each in found.items()}


def _step(
    function: Callable[..., Tensor], of: Tensor, arguments: tuple[object, ...], grad: Tensor | None
) -> None:
    of.grad = None
    function(of, *arguments).backward(grad)
