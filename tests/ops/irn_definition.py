"""The pair losses of IRN (Ahn et al. 2019), pair by pair in float64: the tests' definition."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

Pixel = tuple[int, int]


def pairs(height: int, width: int, radius: float) -> Iterator[tuple[Pixel, Pixel]]:
    """All (source, target): displacements by dy, then dx; sources in row-major order."""
    r = math.ceil(radius) - 1
    for dy in range(r + 1):
        for dx in range(-r, r + 1):
            if (dy, dx) <= (0, 0) or math.hypot(dy, dx) >= radius:
                continue
            for y in range(height - r):
                for x in range(r, width - r):
                    yield (y, x), (y + dy, x + dx)


def path(source: Pixel, target: Pixel) -> list[Pixel]:
    """Pixels of the bounding box closer than 1 to the line."""
    (y0, x0), (y1, x1) = source, target
    length = math.dist(source, target)
    return [
        (y, x)
        for y in range(min(y0, y1), max(y0, y1) + 1)
        for x in range(min(x0, x1), max(x0, x1) + 1)
        if abs((y1 - y0) * (x - x0) - (x1 - x0) * (y - y0)) / length < 1 - 1e-9
    ]


def affinity(edge: Tensor, source: Pixel, target: Pixel) -> Tensor:
    """1 - the largest of `edge (H,W)` on the path, with autograd."""
    return 1 - torch.stack([edge[p] for p in path(source, target)]).amax()


def kind(label: Tensor, source: Pixel, target: Pixel) -> str:
    """Which loss a pair of `label (H,W)` goes into."""
    a, b = int(label[source]), int(label[target])
    if 255 in (a, b):
        return "void"
    if a != b:
        return "negative"
    return "fg_positive" if a else "bg_positive"


def mean(values: list[Tensor], per_pair: int = 1) -> Tensor:
    """Sum over (count + 1e-5)."""
    total = torch.stack(values).sum() if values else torch.zeros((), dtype=torch.float64)
    return total / (per_pair * len(values) + 1e-5)


def affinity_losses(edge: Tensor, label: Tensor, radius: float) -> dict[str, Tensor]:
    """`edge (B,1,H,W)` float64, `label (B,H,W)`."""
    values: dict[str, list[Tensor]] = {"fg_positive": [], "bg_positive": [], "negative": []}
    for b in range(len(edge)):
        for source, target in pairs(*edge.shape[2:], radius):
            which = kind(label[b], source, target)
            if which == "void":
                continue
            a = affinity(edge[b, 0], source, target)
            likelihood = 1 + 1e-5 - a if which == "negative" else a + 1e-5
            values[which].append(-likelihood.log())
    return {name: mean(losses) for name, losses in values.items()}


def displacement_losses(field: Tensor, label: Tensor, radius: float) -> dict[str, Tensor]:
    """`field (B,2,H,W)` float64, `label (B,H,W)`."""
    values: dict[str, list[Tensor]] = {"fg_positive": [], "bg_positive": []}
    for b in range(len(field)):
        for source, target in pairs(*field.shape[2:], radius):
            which = kind(label[b], source, target)
            if which not in values:
                continue
            difference = field[b, :, *source] - field[b, :, *target]
            if which == "fg_positive":
                offset = [t - s for s, t in zip(source, target, strict=True)]
                difference = difference - field.new_tensor(offset)
            values[which].append(difference.abs().sum())
    return {name: mean(losses, 2) for name, losses in values.items()}
