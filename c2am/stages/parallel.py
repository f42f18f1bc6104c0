"""Work on many images at once, in threads: the compiled core and torch release the GIL.

Loading, computing and writing overlap. Where the images go through a network, DALI loads ahead of
it, and jobs of `Workers` do what follows (dense CRF, random walk, encoding, writing) behind it.
Elsewhere (`map_images`) a job loads, computes and writes one image, side by side with others.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Self, TypeVar

import torch

from c2am.progress import progress

T = TypeVar("T")
_WAITING = 2
"""Jobs that run beyond one per core: while they wait for the disk, the cores compute."""
_QUEUED = 2
"""Jobs that wait for a thread: whatever a list's length, memory holds these and those that run."""


def worker_count() -> int:
    """CPU cores of this process, shared between the ranks of one machine."""
    cores = len(os.sched_getaffinity(0))
    return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def job_count(cores: int) -> int:
    """Jobs that run side by side on so many cores."""
    return cores + _WAITING


class Workers:
    """A pool of threads, a few more than cores, with a bounded queue.

    torch and the compiled core use one thread inside of a job: images side by side need no
    barriers. An error of a job is raised by the next `submit` that finds the jobs before it done,
    or at the end of the block; jobs that have not begun are then left out. What a job writes is
    whole (`workspace.atomic`), so an error or a kill loses no more than the jobs that ran.
    """

    def __init__(self) -> None:
        self.count = job_count(worker_count())
        self._pool = ThreadPoolExecutor(
            self.count, initializer=torch.set_num_threads, initargs=(1,)
        )
        self._queue: deque[Future] = deque()

    def __enter__(self) -> Self:
        self._threads = torch.get_num_threads()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self.drain()
        finally:
            self._pool.shutdown(cancel_futures=True)
            torch.set_num_threads(self._threads)

    def submit(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """Queue `function(*arguments)`, when there is room; returns results so far, in order."""
        self._queue.append(self._pool.submit(function, *arguments))
        done = []
        while self._queue and (len(self._queue) > self.count + _QUEUED or self._queue[0].done()):
            done.append(self._queue.popleft().result())
        return done

    def drain(self) -> list[Any]:
        """The results of all that is queued."""
        return [self._queue.popleft().result() for _ in range(len(self._queue))]


def map_images(function: Callable[[str], T], ids: Sequence[str], description: str) -> Iterator[T]:
    """Results of `function(image_id)` in the order of `ids`, computed by `Workers`.

    The first error of an image ends the iteration.
    """
    with Workers() as workers:
        for image_id in progress(ids, description):
            yield from workers.submit(function, image_id)
        yield from workers.drain()
