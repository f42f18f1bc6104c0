"""The processes of one attempt find each other in a store that earlier attempts have used.

torchrun restarts the processes and keeps their store, and with it the addresses of processes that
are gone (torch 2.11), for which the new ones would wait. It counts the restarts of each host apart,
so that number does not tell the attempts apart. Instead the main rank draws a name for the attempt
and tells it each rank that asks, in an answer that repeats what that rank has drawn.
"""

import secrets
import time
from datetime import timedelta

from torch.distributed import PrefixStore, Store


def fresh_store(store: Store, rank: int, world_size: int, timeout: timedelta) -> Store:
    """The part of `store` that belongs to this attempt; called by all ranks.

    Raises:
        TimeoutError: some ranks did not come; the main rank names them.
    """
    own = secrets.token_hex(8)
    deadline = time.monotonic() + timeout.total_seconds()
    if rank == 0:
        _answer(store, own, set(range(1, world_size)), deadline)
        return PrefixStore(own, store)
    store.set(f"asks/{rank}", own)
    asked, attempt = "", ""
    while asked != own:
        _pause(deadline, {0})
        asked, _, attempt = _read(store, f"answer/{rank}").partition(" ")
    store.set(f"{attempt}/joined/{rank}", "yes")
    return PrefixStore(attempt, store)


def _answer(store: Store, attempt: str, missing: set[int], deadline: float) -> None:
    while missing:
        for rank in list(missing):
            store.set(f"answer/{rank}", f"{_read(store, f'asks/{rank}')} {attempt}")
            if store.check([f"{attempt}/joined/{rank}"]):
                missing.remove(rank)
        _pause(deadline, missing)


def _read(store: Store, key: str) -> str:
    return store.get(key).decode() if store.check([key]) else ""


def _pause(deadline: float, missing: set[int]) -> None:
    if time.monotonic() > deadline:
        named = ", ".join(map(str, sorted(missing)))
        raise TimeoutError(f"these ranks have not come: {named}")
    time.sleep(0.01)
