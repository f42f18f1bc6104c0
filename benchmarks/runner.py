"""Cases, and their timing side by side."""

import importlib.util
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

import torch
from torch import Tensor

Call = Callable[[], object]


@dataclass(frozen=True)
class Work:
    """What one call moves and computes, counted by formula.

    Each array that a step of the algorithm reads or writes counts once in that step, as if a step
    kept everything in cache and nothing stayed there from one step to the next.
    """

    bytes: float
    flops: float


@dataclass(frozen=True)
class Case:
    """One set of inputs of an op, and the ways to compute it that are timed side by side."""

    shape: str
    providers: dict[str, Call]
    """Our ways, by name."""
    peers: dict[str, Call] = field(default_factory=dict)
    """Those of other packages, on one thread; the first word of a name is the module it needs."""
    work: Mapping[str, Callable[[], Work]] = field(default_factory=dict)
    """Of a provider or peer; called only when it is reported."""
    on_host: frozenset[str] = frozenset()
    """Providers and peers that compute on the CPU, whatever device the others use."""
    baseline: str = ""
    """The provider or peer that the others are compared with. Default: the first peer that is
    timed, else `reference`, else the first provider."""


@dataclass(frozen=True)
class Entry:
    """A provider or peer on a number of threads."""

    provider: str
    threads: int
    call: Call = field(compare=False)
    on_host: bool = field(default=False, compare=False)


Samples = dict[Entry, list[float]]
"""Milliseconds of a call in each turn; the n-th values of all entries are of the same one."""

_LEAST_S = 0.02
"""Seconds that a turn of an entry takes at least, on the clocks of the CPU."""


def best_device() -> torch.device:
    """CUDA if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def default_clock() -> str:
    """What `milliseconds` measures with here: "gpu" if there is one, else "wall"."""
    return "gpu" if best_device().type == "cuda" else "wall"


def missing_peers(case: Case) -> list[str]:
    """Peers of a case whose module is not installed."""
    return [name for name in case.peers if importlib.util.find_spec(name.split()[0]) is None]


def entries(case: Case, threads: Sequence[int], *, peers: bool) -> list[Entry]:
    """What is timed: each provider on each number of threads, each installed peer on one."""
    absent = missing_peers(case)
    timed = [(name, n, call) for n in threads for name, call in case.providers.items()]
    if peers:
        timed += [(name, 1, call) for name, call in case.peers.items() if name not in absent]
    return [Entry(name, n, call, on_host=name in case.on_host) for name, n, call in timed]


def baseline(case: Case, timed: Sequence[Entry], entry: Entry) -> Entry:
    """What an entry is compared with: on the same number of threads if it was timed there."""
    names = [e.provider for e in timed]
    wanted = [case.baseline, *case.peers, "reference", *case.providers]
    name = next(name for name in wanted if name in names)
    same = [e for e in timed if e.provider == name]
    return next((e for e in same if e.threads == entry.threads), same[0])


def time_entries(
    timed: Sequence[Entry], *, budget_s: float = 6.0, clock: str, least: int = 5
) -> Samples:
    """Time the entries in turns, so that a noisy machine is noisy for all of them.

    Args:
        timed: What to time.
        budget_s: Seconds that all turns may take together, if `least` turns do not take longer.
        clock: As for `milliseconds`; see `clock_of`.
        least: Least number of turns.

    Returns:
        The times, after one call of each that does not count.
    """
    for entry in timed:  # compiles, or chooses among the configurations of a kernel
        _time(entry, clock)
    start = time.perf_counter()
    times: Samples = {entry: [_time(entry, clock)] for entry in timed}
    turn = time.perf_counter() - start
    turns = max(least, min(50, int(budget_s / max(turn, 1e-6))))
    for _ in range(turns - 1):
        for entry in timed:
            times[entry].append(_time(entry, clock))
    return times


def clock_of(entry: Entry, clock: str) -> str:
    """The clock that times an entry: where the others are timed on a GPU, "wall" for the host's."""
    return "wall" if entry.on_host and clock == "gpu" else clock


def _time(entry: Entry, clock: str) -> float:
    torch.set_num_threads(entry.threads)
    return milliseconds(entry.call, clock_of(entry, clock))


def milliseconds(call: Call, clock: str) -> float:
    """Time of a call.

    Args:
        call: What to time.
        clock: "wall"; "cpu", the processor time of all threads of this process: both the mean of
            the calls of 20 ms, since the first one after another provider's finds cold caches; or
            "gpu", between two events on the GPU. It gets the call's kernels while it still reads
            1 GiB, so that launching the first of them takes no time and its cache holds none of
            their inputs, nor anything that has to be written back.
    """
    if clock == "gpu":
        return _gpu_milliseconds(call)
    now = time.perf_counter if clock == "wall" else time.process_time
    _synchronize()
    calls, start, began = 0, now(), time.perf_counter()
    while calls == 0 or time.perf_counter() - began < _LEAST_S:
        call()
        _synchronize()
        calls += 1
    return (now() - start) * 1e3 / calls


def _gpu_milliseconds(call: Call) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    _synchronize()
    _larger_than_caches().sum()
    start.record()
    call()
    end.record()
    _synchronize()
    return start.elapsed_time(end)


@cache
def _larger_than_caches() -> Tensor:
    return torch.zeros(2**28, device="cuda")  # 1 GiB, 0.3 ms of an H100


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
