"""When images were done: what a stage's speed is computed from."""

import itertools
import threading
import time

import torch

from c2am.config import PipelineConfig
from c2am.stages.parallel import job_count

WARM = 3
"""The first windows hold compilation and batches that were loaded ahead."""


class EnoughError(Exception):
    """All that is to be measured is measured."""


class Recorder:
    """Takes the place of a stage's `Events`: notes the time of every log line.

    Args:
        batch_size: Images of a step.
        marks: So many are noted; the next one raises `EnoughError`.
        window: Images that `add` counts from one mark to the next, at least.
    """

    name = "benchmark"

    def __init__(self, batch_size: int, marks: int, window: int = 1) -> None:
        self.batch_size, self.limit, self.window = batch_size, marks + WARM, window
        self.gflop_per_image: float | None = None
        self.matmul_gflop_s: float | None = None
        self._lock = threading.Lock()
        self._done = 0
        self._marks = [(0, time.perf_counter())]

    def log(self, step: int, values: dict[str, float]) -> None:
        """`step` steps are done."""
        self._mark(step * self.batch_size)

    def add(self, images: int) -> None:
        """So many images more are done."""
        with self._lock:
            self._done += images
            if self._done - self._marks[-1][0] >= self.window:
                self._mark(self._done)

    def _mark(self, images: int) -> None:
        if len(self._marks) > self.limit:
            raise EnoughError
        self._marks.append((images, time.perf_counter()))

    def rates(self) -> list[float]:
        """Images per second of each window after the first ones.

        Raises:
            ValueError: there is none.
        """
        steady = self._marks[WARM:]
        if len(steady) < 2:
            raise ValueError("too few images for a window after the first ones: raise --images")
        pairs = itertools.pairwise(steady)
        return [(done - before) / (at - since) for (before, since), (done, at) in pairs]

    def startup(self) -> float:
        """Seconds to the first mark, beyond what it would take later: loading, compiling."""
        (_, began), (images, first) = self._marks[:2]
        rates = sorted(self.rates())
        return first - began - images / rates[len(rates) // 2]


def images_of_window(stage: str, config: PipelineConfig, device: torch.device, cores: int) -> int:
    """Images of a window of a per-image stage: what its jobs on `cores` hold at once, twice.

    Jobs that run side by side end in bursts, and the time from one to the next says nothing. On a
    CPU those of `cam` end one by one, as the network takes far longer than they do.
    """
    batch = 1 if stage == "irn_labels" else config.cam.batch_size
    one_by_one = stage == "cam" and device.type == "cpu"
    return batch if one_by_one else 2 * job_count(cores) * batch
