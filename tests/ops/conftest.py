"""Fixtures of the tests of the ops."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from c2am import ops


@pytest.fixture
def nan_in_fresh_memory() -> Iterator[None]:
    """Fill what `torch.empty` returns with NaN, so that an output that is not written fails."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    assert torch.utils.deterministic.fill_uninitialized_memory
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def launched() -> Callable[[str, str], int]:
    """Launches of (op, backend) since the test began."""
    before = ops.launches.copy()
    return lambda op, backend: ops.launches[op, backend] - before[op, backend]


@pytest.fixture
def largest_allocation() -> Callable[[Callable[[], object]], int]:
    """Bytes of the largest single allocation that a call makes on the CPU."""

    def measure(call: Callable[[], object]) -> int:
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            call()
        return max(event.self_cpu_memory_usage for event in profiler.events())

    return measure
