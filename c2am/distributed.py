"""One process or many: rank, shard and reductions. With one process everything here is a no-op.

Start several with `torchrun --nproc-per-node N -m c2am.train ...`. When a rank fails, torchrun
ends the others; where one hangs, those that wait for it name it and end (`watchdog.py`).

How several ranks get the gradient of one: `DistributedDataParallel` averages the gradients of the
ranks, so each rank must return a loss whose *mean over ranks* is the loss of the global batch.
`global_mean` makes such a loss from a local sum and count; every term of a task goes through it.
"""

import gc
import heapq
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from c2am.joining import fresh_store
from c2am.watchdog import Watchdog

T = TypeVar("T")
_watchdog: Watchdog | None = None


def rank() -> int:
    """Index of this process, 0 to world_size() - 1."""
    return dist.get_rank() if _is_initialized() else 0


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if _is_initialized() else 1


def is_main() -> bool:
    """Whether this process writes the manifests, logs and checkpoints."""
    return rank() == 0


def _is_initialized() -> bool:
    return dist.is_available() and dist.is_initialized()


@contextmanager
def session(device: str = "auto", timeout: float = 3600.0) -> Iterator[torch.device]:
    """Join the other processes that torchrun started, if any; yield the device of this one.

    Args:
        device: auto (CUDA where there is one), cpu or cuda.
        timeout: longest wait for another rank, seconds; then the process names it and exits with
            `watchdog.EXIT_CODE`. The main rank scores alone, so it is not to be short.

    Raises:
        ValueError: CUDA is asked for and missing, or has fewer devices than local ranks.
        TimeoutError: some ranks did not come.
    """
    global _watchdog
    own = _local_device(device)
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield own
        return
    if own.type == "cuda":
        torch.cuda.set_device(own)
    # Imported later (by DDP, with torch._dynamo) it would keep the group as a default argument, and
    # the group's threads would outlive it: one that frees a tensor while Python ends is an abort.
    from torch.distributed.nn import functional  # noqa: F401

    common, index, count = next(rendezvous("env://"))
    store = fresh_store(common, index, count, timedelta(seconds=timeout))
    # Twice: the watchdog, which says who is missing, is to be first.
    dist.init_process_group(
        "nccl" if own.type == "cuda" else "gloo",
        store=store,
        rank=index,
        world_size=count,
        timeout=timedelta(seconds=2 * timeout),
    )
    _watchdog = watchdog = Watchdog(store, index, count, timeout)
    try:
        yield own
    except SystemExit:  # agreed on by all ranks; not so errors: leaving would wait for the others
        _leave(watchdog)
        raise
    _leave(watchdog)


def _leave(watchdog: Watchdog) -> None:
    global _watchdog
    watchdog.stop()
    _watchdog = None
    gc.collect()  # what is left of DDP refers to the group
    dist.destroy_process_group()


def _local_device(device: str) -> torch.device:
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device != "cuda":
        return torch.device(device)
    if not torch.cuda.is_available():
        raise ValueError("device = 'cuda': torch sees no CUDA device here")
    index = int(os.environ.get("LOCAL_RANK", "0"))
    if index >= torch.cuda.device_count():
        found = torch.cuda.device_count()
        raise ValueError(f"--nproc-per-node: local rank {index} has no GPU, {found} found")
    return torch.device("cuda", index)


def shard(items: Sequence[T], cost: Callable[[T], float] = lambda item: 1.0) -> list[T]:
    """The items of this rank, in their order; what the ranks have costs about the same.

    The costliest item comes first, each goes to the rank that has least so far (Graham 1969: the
    largest share is at most 4/3 of the least possible). All ranks compute the same split; where
    all items cost the same, rank r has every world_size()-th from the r-th on.
    """
    if world_size() == 1:
        return list(items)
    costs = [cost(item) for item in items]
    shares = [(0.0, each) for each in range(world_size())]
    mine = []
    for index in sorted(range(len(items)), key=lambda index: -costs[index]):
        total, owner = shares[0]
        heapq.heapreplace(shares, (total + costs[index], owner))
        if owner == rank():
            mine.append(index)
    return [items[index] for index in sorted(mine)]


def waiting(place: str) -> AbstractContextManager[None]:
    """Around what waits for other ranks, so that it is said where and for whom it hangs."""
    return nullcontext() if _watchdog is None else _watchdog.waiting(place)


def barrier() -> None:
    """Wait for all ranks."""
    if world_size() > 1:
        with waiting("a barrier"):
            dist.barrier()


@contextmanager
def main_first() -> Iterator[None]:
    """Run the block on the main rank, then on the others: they find what it has made."""
    if not is_main():
        barrier()
    yield
    if is_main():
        barrier()


def all_reduce_sum(tensor: torch.Tensor) -> torch.Tensor:
    """Sum of `tensor` over the ranks, on each of them; a new tensor without gradient.

    `tensor` lies on the device of the session (NCCL reduces no CPU tensors) and has the same
    shape and dtype on every rank.
    """
    total = tensor.detach().clone()
    if world_size() == 1:
        return total
    if torch.compiler.is_compiling():  # the wait is that of the step
        dist.all_reduce(total)
    else:
        with waiting("a sum over the ranks"):
            dist.all_reduce(total)
    return total


def sum_on_host(tensor: torch.Tensor) -> torch.Tensor:
    """`all_reduce_sum` of `tensor`, on the CPU.

    NCCL only queues a sum: it is the reading that waits for the other ranks.
    """
    with waiting("a sum over the ranks"):
        return all_reduce_sum(tensor).cpu()


def gather(tensor: torch.Tensor) -> torch.Tensor:
    """`tensor (...)` of every rank as `(R, ...)`, on each of them; as for `all_reduce_sum`."""
    if world_size() == 1:
        return tensor[None]
    rows = [torch.empty_like(tensor) for _ in range(world_size())]
    with waiting("a gathering"):
        dist.all_gather(rows, tensor)
    return torch.stack(rows)


def from_main(value: int, device: torch.device) -> int:
    """The main rank's `value` (int64), on all ranks; `device` is that of the session."""
    return list_from_main([value], device)[0]


def list_from_main(values: Sequence[int], device: torch.device) -> list[int]:
    """As `from_main`, of several values; every rank hands over as many."""
    own = torch.tensor(values, dtype=torch.int64, device=device)
    return sum_on_host(own if is_main() else torch.zeros_like(own)).tolist()


def global_mean(total: torch.Tensor, count: torch.Tensor | float) -> torch.Tensor:
    """Mean over the global batch, from this rank's part of it.

    Returns `total * world_size / (count summed over ranks)`: its mean over the ranks is
    `sum(total) / sum(count)`, so that averaging the gradients, as
    `DistributedDataParallel` does, gives exactly the gradient of the global mean, however
    unevenly images, pixels or pairs fall on the ranks. With one process it is `total / count`.

    Examples::

        # a mean over pixels or pairs: hand over the sum and how many were summed
        global_mean((loss * mask).sum(), mask.sum())
        # a local mean over the b images of a batch
        global_mean(loss * b, b)

    Args:
        total: scalar, the local sum; differentiable.
        count: scalar, how much was summed here; takes no gradient. It may be 0 on some ranks; where
            it is 0 on all of them the mean of nothing is taken as 0.

    All ranks call it equally often and in the same order: it waits for the others.
    """
    if not isinstance(count, torch.Tensor):  # `as_tensor` would wait for a GPU
        count = torch.full((), count, dtype=total.dtype, device=total.device)
    everywhere = all_reduce_sum(count.to(total.dtype))
    factor = (world_size() / everywhere).masked_fill(everywhere == 0, 0.0)
    return total * factor.to(total.dtype)
