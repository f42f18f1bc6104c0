"""Peak memory of one call, in a process of its own: `python -m benchmarks.memory OP CASE PROVIDER`.

Measured in the benchmark's own process, the peak would be that of the greediest provider; but for
CUDA, where torch's allocator counts what each call takes.
"""

import argparse
import ctypes
import gc
import subprocess
import sys
from itertools import islice
from pathlib import Path

import torch

from benchmarks.ops import cases
from benchmarks.runner import Call, Entry, best_device
from c2am.provenance import peak_memory, reset_peak_memory


def peak_of(op: str, index: int, entry: Entry, image: Path | None) -> int:
    """Bytes that a call of a provider takes at its peak, beside its inputs: its first on the CPU.

    Args:
        op: Name of the op.
        index: Of the case among the op's cases.
        entry: The provider and the number of threads.
        image: As for the op's cases.

    Raises:
        RuntimeError: the process failed; with what it printed.
    """
    if best_device().type == "cuda":
        return _peak(entry.call)
    command = [sys.executable, "-m", "benchmarks.memory", op, str(index), entry.provider]
    command += ["--threads", str(entry.threads), *(["--image", str(image)] if image else [])]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}:\n{done.stderr}")
    return int(done.stdout.split()[-1])


def _measure(op: str, index: int, provider: str, image: Path | None) -> int:
    case = next(islice(cases(op, image), index, None))
    return _peak((case.providers | case.peers)[provider])


def _peak(call: Call) -> int:
    device = best_device()
    gc.collect()
    # Freed memory that the C library keeps is resident: a call that gets it seems to take none.
    ctypes.CDLL(None).malloc_trim(0)
    before = _used(device)
    files = _resident("RssFile")
    reset_peak_memory(device)
    call()
    peak = peak_memory(device) - before
    # What the call loads of libraries and modules is not what it needs to compute.
    return peak if device.type == "cuda" else peak - max(0, _resident("RssFile") - files)


def _used(device: torch.device) -> int:
    return torch.cuda.memory_allocated() if device.type == "cuda" else _resident("VmRSS")


def _resident(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status: no line {field}")


def main() -> None:
    """Print the peak in bytes."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory")
    parser.add_argument("op")
    parser.add_argument("case", type=int)
    parser.add_argument("provider")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--image", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(_measure(options.op, options.case, options.provider, options.image))


if __name__ == "__main__":
    main()
