"""The bandwidth of this machine's memory, by the triad of McCalpin's STREAM."""

from functools import partial

import torch

from benchmarks.runner import default_clock, milliseconds

ELEMENTS = 2**25  # three arrays of 128 MiB, more than caches hold
REPEATS = 8


def triad(threads: int, device: torch.device) -> float:
    """The best of some runs of a = b + s c, in bytes per second: 12 bytes for each element."""
    torch.set_num_threads(threads)
    a, b, c = torch.zeros(3, ELEMENTS, device=device)
    add = partial(torch.add, b, c, alpha=3.0, out=a)
    fastest = min(milliseconds(add, default_clock()) for _ in range(REPEATS))
    return 12 * ELEMENTS / (fastest / 1e3)
