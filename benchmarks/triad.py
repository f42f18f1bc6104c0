"""The bandwidth of this machine's memory, by the triad of McCalpin's STREAM."""

import time

import torch

ELEMENTS = 2**25  # three arrays of 128 MiB, more than caches hold
REPEATS = 8


def triad(threads: int, device: torch.device) -> float:
    """The best of some runs of a = b + s c, in bytes per second: 12 bytes for each element."""
    torch.set_num_threads(threads)
    a, b, c = torch.zeros(3, ELEMENTS, device=device)
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        torch.add(b, c, alpha=3.0, out=a)
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return 12 * ELEMENTS / min(seconds)
