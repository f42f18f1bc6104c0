"""Work on many images at once, in threads: the compiled core and torch release the GIL."""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Self, TypeVar

import torch

from c2am.progress import progress

T = TypeVar("T")
_QUEUED_PER_WORKER = 2


def worker_count() -> int:
    """CPU cores of this process, shared between the ranks of one machine."""
    cores = len(os.sched_getaffinity(0))
    return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


class Workers:
    """A pool of one thread per core with a bounded queue, so memory does not grow with a list.

    torch and the compiled core use one thread inside of a job. An error of a job is raised by a
    later `submit`, or at the end of the block.
    """

    def __init__(self) -> None:
        self.count = worker_count()
        self._pool = ThreadPoolExecutor(
            self.count, initializer=torch.set_num_threads, initargs=(1,)
        )
        self._queue: deque[Future] = deque()

    def __enter__(self) -> Self:
        self._threads = torch.get_num_threads()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._pool.shutdown(cancel_futures=kind is not None)
        torch.set_num_threads(self._threads)
        if kind is None:
            self.drain()

    def submit(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """Queue `function(*arguments)`; returns results that had to be waited for, in order."""
        self._queue.append(self._pool.submit(function, *arguments))
        done = []
        while len(self._queue) > _QUEUED_PER_WORKER * self.count:
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
