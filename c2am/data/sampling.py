"""The endless stream of training samples: sample n is a function of the seed and n alone.

So the state of a loader is one number, a resumed training sees what an undisturbed one would, and
R ranks together see what a single process would.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from c2am.config import TrainConfig

_ORDER, _AUGMENT = 0, 1  # what a generator is for, so that the two never share a stream


@dataclass(frozen=True)
class Sample:
    """One training sample: which image, and how it is augmented."""

    index: int
    """Place in the list of ids."""
    size_draw: float
    """Where in the range of sizes or scales, 0..1."""
    crop_draw: tuple[float, float]
    """Which of the possible crop positions (y, x), each 0..1."""
    flip: bool


def sample(n: int, count: int, seed: int, *, flip: bool) -> Sample:
    """Sample `n` of the stream over `count` images: epoch n // count, a permutation of them."""
    epoch, place = divmod(n, count)
    size_draw, y, x, coin = np.random.default_rng((seed, _AUGMENT, n)).random(4)
    index = int(_permutation(seed, epoch, count)[place])
    return Sample(index, float(size_draw), (float(y), float(x)), flip and coin < 0.5)


@lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, count: int) -> np.ndarray:
    return np.random.default_rng((seed, _ORDER, epoch)).permutation(count)


def resized(size: tuple[int, int], draw: float, config: TrainConfig) -> tuple[int, int]:
    """(H, W) that an image of `size` is resized to: `resize_long`, `scale`, or as it is."""
    if config.resize_long is not None:
        low, high = config.resize_long
        factor = (low + draw * (high - low)) / max(size)
    elif config.scale is not None:
        low, high = config.scale
        factor = low + draw * (high - low)
    else:
        return size
    return scaled(size, factor)


def crop_anchor(size: tuple[int, int], crop: int, draw: tuple[float, float]) -> tuple[float, float]:
    """Crop position (y, x) as DALI takes it, a fraction of (size - crop).

    Every whole-pixel position is as likely as another. That holds too where the crop is larger than
    the image: then the image lies anywhere within the crop.
    """
    y, x = (_offset(side - crop, uniform) for side, uniform in zip(size, draw, strict=True))
    return y, x


def _offset(room: int, uniform: float) -> float:
    return int(uniform * (abs(room) + 1)) / abs(room) if room else 0.0


def scaled(size: tuple[int, int], factor: float) -> tuple[int, int]:
    """(H, W) times `factor`, rounded, at least one pixel."""
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def rank_part(batch_size: int, rank: int, world_size: int) -> range:
    """Places within a batch that a rank loads: contiguous, as even as can be."""
    return range(batch_size * rank // world_size, batch_size * (rank + 1) // world_size)
