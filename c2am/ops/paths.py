"""Pairs of pixels and the paths between them (Ahn et al. 2019, "IRN").

A pair is a source pixel and the pixel at one of the displacements (dy, dx) from it: those of the
half-plane dy > 0, or dy = 0 and dx > 0, that are shorter than `radius`, so that each unordered
pair of pixels is met once. Its path holds every pixel of the bounding box of the two whose
distance to the line through them is below 1, both ends included. Sources are the interior of the
map from which every displacement stays inside: with r = ceil(radius) - 1, the rows 0..H-r-1 and
the columns r..W-r-1.
"""

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from c2am.palette import VOID


class Path(NamedTuple):
    """A displacement and the pixels on its path, as offsets (y, x) from the source."""

    dy: int
    dx: int
    pixels: tuple[tuple[int, int], ...]
    """From the source (0, 0) on: by |y| + |x|, then y, then x."""


@lru_cache(maxsize=32)
def path_offsets(radius: float) -> tuple[Path, ...]:
    """The P displacements shorter than `radius`, with their paths.

    Ordered by dy, then dx: 34 for radius 5, 152 for radius 10.

    Raises:
        ValueError: `radius` is not above 1, so that no pixel has a neighbour.
    """
    if not 1 < radius < math.inf:
        raise ValueError(f"path_offsets: radius is {radius}, expected a number above 1")
    reach = interior_margin(radius)
    return tuple(
        Path(dy, dx, _path(dy, dx))
        for dy in range(reach + 1)
        for dx in range(-reach, reach + 1)
        if (dy > 0 or dx > 0) and dy * dy + dx * dx < radius * radius
    )


class PathChains(NamedTuple):
    """The displacements in an order in which most paths extend that of the one before.

    A pixel (y, x) of a path is the integer (|y| + |x|) 2^20 + y 2^10 + x + 2^9, so that of two
    pixels the smaller one is nearer to the source, in the order of `Path.pixels`.
    """

    visits: Tensor
    """(P + 1, 4) int32. For each: where its pixels begin in `pixels`; its place in `path_offsets`;
    1 if its path is made of these pixels and the source alone, 0 if also of those of the path
    before; its target. The last row ends the table."""
    pixels: Tensor
    """(M,) int32, the pixels that each visit adds: 102 for radius 5, 980 for radius 10, where the
    paths have 208 and 1982 without their source."""


@lru_cache(maxsize=32)
def path_chains(radius: float, device: torch.device) -> PathChains:
    """The table that the Triton kernels walk along, on their device.

    Raises:
        ValueError: `radius` is above 512, which the integers of the table cannot hold.
    """
    if interior_margin(radius) >= 512:
        raise ValueError(f"path_chains: radius is {radius}, expected at most 512")
    table = path_offsets(radius)
    visits: list[list[int]] = []
    pixels: list[int] = []
    for chain in _chains(table):
        seen = {(0, 0)}
        for place, p in enumerate(chain):
            path = table[p]
            visits.append([len(pixels), p, int(place == 0), _code(path.dy, path.dx)])
            pixels += [_code(y, x) for y, x in path.pixels if (y, x) not in seen]
            seen.update(path.pixels)
    visits.append([len(pixels), -1, 1, 0])
    return PathChains(
        torch.tensor(visits, dtype=torch.int32, device=device),
        torch.tensor(pixels, dtype=torch.int32, device=device),
    )


def _code(y: int, x: int) -> int:
    return (abs(y) + abs(x)) << 20 | y << 10 | (x + 512)


def _chains(table: tuple[Path, ...]) -> list[list[int]]:
    """The paths in chains, each path holding all pixels of the one before: the longest first."""
    sets = [frozenset(path.pixels) for path in table]
    order = range(len(table))
    nested = [(len(sets[j]), i, j) for i in order for j in order if sets[j] < sets[i]]
    after: dict[int, int] = {}
    before: dict[int, int] = {}
    for _, i, j in sorted(nested, reverse=True):
        if i not in before and j not in after:
            before[i], after[j] = j, i
    chains = []
    for head in (p for p in order if p not in before):
        chain = [head]
        while chain[-1] in after:
            chain.append(after[chain[-1]])
        chains.append(chain)
    return chains


def interior_margin(radius: float) -> int:
    """r = ceil(radius) - 1, the reach of the longest displacement along an axis."""
    return math.ceil(radius) - 1


def interior_size(height: int, width: int, radius: float) -> tuple[int, int]:
    """Rows and columns of source pixels: (H - r, W - 2r), or 0 where the map is too small."""
    r = interior_margin(radius)
    return max(height - r, 0), max(width - 2 * r, 0)


def shifted(value: Tensor, y: int, x: int, radius: float) -> Tensor:
    """A view of `value (..., H, W)` at the offset (y, x) from every source pixel."""
    r = interior_margin(radius)
    rows, columns = interior_size(value.shape[-2], value.shape[-1], radius)
    return value[..., y : y + rows, r + x : r + x + columns]


def path_maximum(edge: Tensor, path: Path, radius: float) -> Tensor:
    """Largest value of `edge (B,H,W)` on the path from every source pixel: (B, H-r, W-2r)."""
    largest = shifted(edge, 0, 0, radius).clone()
    for y, x in path.pixels[1:]:
        torch.maximum(largest, shifted(edge, y, x, radius), out=largest)
    return largest


def path_argmaximum(edge: Tensor, path: Path, radius: float) -> tuple[Tensor, Tensor]:
    """`path_maximum` and where it is, as an offset in a flattened (H, W) map from the source.

    Among equal values the first on the path wins, that is the one nearest to the source.
    """
    largest = shifted(edge, 0, 0, radius).clone()
    # Places on the path are kept as floats: comparisons that stay in one dtype are vectorised.
    last_rise, rise = torch.zeros_like(largest), torch.empty_like(largest)
    for place, (y, x) in enumerate(path.pixels[1:], 1):
        candidate = shifted(edge, y, x, radius)
        torch.maximum(last_rise, rise.copy_(candidate).gt_(largest).mul_(place), out=last_rise)
        torch.maximum(largest, candidate, out=largest)
    offsets = [y * edge.shape[-1] + x for y, x in path.pixels]
    return largest, torch.tensor(offsets, device=edge.device)[last_rise.long()]


def source_index(edge: Tensor, radius: float) -> Tensor:
    """Index of every source pixel in the flattened `edge (B,H,W)`: (B, H-r, W-2r) int64."""
    pixels = torch.arange(edge.numel(), device=edge.device)
    return shifted(pixels.view(edge.shape), 0, 0, radius)


class PairKinds(NamedTuple):
    """Which pairs of one displacement are of which kind: three (B, H-r, W-2r) masks of 0 and 1."""

    fg_positive: Tensor
    """Both ends of the same foreground class."""
    bg_positive: Tensor
    """Both ends background."""
    negative: Tensor
    """Ends of different classes. Pairs with a void end are of no kind."""


def pair_kinds(label: Tensor, path: Path, radius: float) -> PairKinds:
    """Kinds of the pairs of one displacement, from `label (B,H,W)` with -1 for void.

    The masks have the dtype of `label`: float ones are the fastest, as in `path_argmaximum`.
    """
    source = shifted(label, 0, 0, radius)
    target = shifted(label, path.dy, path.dx, radius)
    same = source.clone().eq_(target)
    fg_positive = source.clone().gt_(0).mul_(same)
    bg_positive = source.clone().eq_(0).mul_(same)
    both_known = source.clone().ge_(0).mul_(target.clone().ge_(0))
    return PairKinds(fg_positive, bg_positive, both_known.sub_(fg_positive).sub_(bg_positive))


def void_to_minus_one(op: str, label: Tensor, num_classes: int, dtype: torch.dtype) -> Tensor:
    """`label` in another dtype, with -1 where it is none of 0..num_classes.

    Raises:
        ValueError: a value that is neither 0..num_classes nor 255 (CPU only).
    """
    label = label.long()
    void = (label < 0) | (label > num_classes)
    if label.device.type == "cpu" and bool((void & (label != VOID)).any()):
        stray = label[void & (label != VOID)][0].item()
        raise ValueError(f"{op}: label has {stray}, expected 0..{num_classes} or {VOID} (void)")
    return label.masked_fill(void, -1).to(dtype)


def _path(dy: int, dx: int) -> tuple[tuple[int, int], ...]:
    length_squared = dy * dy + dx * dx
    pixels = [
        (y, x)
        for y in range(dy + 1)
        for x in range(min(0, dx), max(0, dx) + 1)
        # The cross product over the length is the distance to the line.
        if (dy * x - dx * y) ** 2 < length_squared
    ]
    return tuple(sorted(pixels, key=lambda p: (abs(p[0]) + abs(p[1]), p)))
