"""A rank that waits too long for the others says for which one, and ends.

Collectives have a time-out of their own, but its message does not tell who is missing, and a host
that waits for a GPU cannot be interrupted. So each rank has a thread that publishes how many waits
(collectives, steps) its rank has entered; all ranks go through the same ones, so the rank that
others wait for is the one with the lowest number.
"""

import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn, cast

from torch.distributed import Store

EXIT_CODE = 124
"""Of a process that waited in vain for another rank, as that of `timeout` (1)."""


class Watchdog:
    """Watches the waits of one rank.

    Args:
        store: that of the process group; the thread uses a connection of its own.
        rank: index of this process.
        world_size: number of processes.
        timeout: longest wait, seconds.
    """

    def __init__(self, store: Store, rank: int, world_size: int, timeout: float) -> None:
        self.store = cast(Store, store.clone())  # type: ignore[attr-defined]
        self.rank, self.world_size, self.timeout = rank, world_size, timeout
        self._interval = min(timeout / 10, 5.0)
        self._place = (0, "the start")
        self._since: float | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="c2am-watchdog", daemon=True)
        self._thread.start()

    @contextmanager
    def waiting(self, place: str) -> Iterator[None]:
        """Around what waits for other ranks; all ranks enter the same waits in the same order."""
        if self._since is not None:  # the outer wait counts
            yield
            return
        self._place = (self._place[0] + 1, place)
        self._since = time.monotonic()
        try:
            yield
        finally:
            self._since = None

    def stop(self) -> None:
        """End the thread."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            self.store.set(f"who/{self.rank}", f"{socket.gethostname()}, process {os.getpid()}")
            while not self._stopped.wait(self._interval):
                self._publish()
                if self._late():
                    self._stopped.wait(2 * self._interval)  # the others publish as well
                    if self._late():
                        self._end(self._missing())
        except RuntimeError as error:  # the store has gone, and with it the rank that served it
            if self._late():
                self._end(f"another rank, the one with the store among them ({error})")

    def _late(self) -> bool:
        since = self._since
        return since is not None and time.monotonic() - since > self.timeout

    def _publish(self) -> None:
        entered, place = self._place
        self.store.set(f"place/{self.rank}", f"{entered} {place}")

    def _missing(self) -> str:
        """The ranks that have entered the fewest waits."""
        places = [self._read(f"place/{rank}", "0 the start") for rank in range(self.world_size)]
        entered = [int(place.split(" ", 1)[0]) for place in places]
        if min(entered) == max(entered):
            return "all ranks, which are in the same collective"
        return " and ".join(
            f"rank {rank} ({self._read(f'who/{rank}', 'never seen')}; "
            f"last seen at {places[rank].split(' ', 1)[1]})"
            for rank, count in enumerate(entered)
            if count == min(entered)
        )

    def _read(self, key: str, missing: str) -> str:
        return self.store.get(key).decode() if self.store.check([key]) else missing

    def _end(self, whom: str) -> NoReturn:
        message = f"rank {self.rank} waited {self.timeout:g} s at {self._place[1]} for {whom}"
        print(f"error: {message}", file=sys.stderr, flush=True)
        os._exit(EXIT_CODE)  # the main thread cannot be interrupted where it is
