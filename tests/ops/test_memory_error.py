"""Memory that is short ends a call of the compiled core by an error, not the process."""

import subprocess
import sys

import pytest

from c2am import ops

CALLS = {
    "random_walk": "ops.random_walk(torch.rand(20, 700, 700), torch.rand(700, 700), steps=2)",
    "random_walk_batch": (
        "ops.random_walk_batch([torch.rand(20, 700, 700)] * 2, [torch.rand(700, 700)] * 2, steps=2)"
    ),
    "dense_crf": (
        "ops.dense_crf((torch.rand(700, 700, 3) * 256).byte(), torch.rand(21, 700, 700))"
    ),
}

# Limits from far too little to nearly enough, so that allocations of all stages fail.
SCRIPT = """
import resource, torch
from c2am import ops
torch.set_num_threads({threads})
ops.dense_crf(torch.zeros(4, 4, 3, dtype=torch.uint8), torch.rand(3, 4, 4))  # starts the threads
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
failed = 0
for extra in range(8, 200, 6):
    resource.setrlimit(resource.RLIMIT_AS, (size + (extra << 20), resource.RLIM_INFINITY))
    try:
        {call}
    except (MemoryError, RuntimeError) as error:  # RuntimeError: torch's own allocations
        failed += isinstance(error, MemoryError)
print("failed", failed)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits the address space")
@pytest.mark.skipif(ops.backend_of("dense_crf", "cpu") != "native", reason="no compiled core")
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("call", CALLS)
def test_out_of_memory_is_an_error(call: str, threads: int) -> None:
    script = SCRIPT.format(call=CALLS[call], threads=threads)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[1]) > 0
