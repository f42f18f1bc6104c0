"""What the ops on pairs of pixels have to visit."""

from typing import NamedTuple

from c2am.ops.paths import interior_size, path_offsets


class PairCount(NamedTuple):
    """Of one image."""

    total: int
    steps: int
    """Pixels on the paths of all pairs, without their sources."""


def count_pairs(height: int, width: int, radius: float) -> PairCount:
    """Of a map of this size, see `c2am.ops.paths`."""
    rows, columns = interior_size(height, width, radius)
    paths = path_offsets(radius)
    steps = sum(len(path.pixels) - 1 for path in paths)
    return PairCount(rows * columns * len(paths), rows * columns * steps)
