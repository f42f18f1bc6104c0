"""When images were done: what a stage's speed is computed from."""

import itertools
import threading
import time


class EnoughError(Exception):
    """All that is to be measured is measured."""


class Recorder:
    """Takes the place of a stage's `Events`: notes the time of every log line.

    Args:
        batch_size: Images of a step.
        marks: So many are noted; the next one raises `EnoughError`.
    """

    name = "benchmark"
    warm = 3
    """The first windows hold compilation and batches that were loaded ahead."""

    def __init__(self, batch_size: int, marks: int) -> None:
        self.batch_size, self.limit = batch_size, marks + self.warm
        self.gflop_per_image: float | None = None
        self.matmul_gflop_s: float | None = None
        self._lock = threading.Lock()
        self._marks = [(0, time.perf_counter())]

    def log(self, step: int, values: dict[str, float]) -> None:
        """`step` steps are done."""
        self._mark(step * self.batch_size)

    def add(self, images: int) -> None:
        """So many images more are done."""
        with self._lock:
            self._mark(self._marks[-1][0] + images)

    def _mark(self, images: int) -> None:
        if len(self._marks) > self.limit:
            raise EnoughError
        self._marks.append((images, time.perf_counter()))

    def rates(self) -> list[float]:
        """Images per second of each window after the first ones.

        Raises:
            ValueError: there is none.
        """
        steady = self._marks[self.warm :]
        if len(steady) < 2:
            raise ValueError("too few images for a window after the first ones: raise --images")
        pairs = itertools.pairwise(steady)
        return [(done - before) / (at - since) for (before, since), (done, at) in pairs]

    def startup(self) -> float:
        """Seconds to the first mark, beyond what it would take later: loading, compiling."""
        (_, began), (images, first) = self._marks[:2]
        rates = sorted(self.rates())
        return first - began - images / rates[len(rates) // 2]
