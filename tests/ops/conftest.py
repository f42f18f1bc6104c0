"""Fixtures of the tests of the ops."""

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import ModuleType

import pytest
import torch
from hypothesis import settings
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.testing import assert_close

from c2am import ops

# The examples of a property are the same in each run, and take the time that they take.
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")


@contextmanager
def fresh_memory_is_nan() -> Iterator[None]:
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        assert torch.utils.deterministic.fill_uninitialized_memory
        assert torch.empty(3).isnan().all()
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.fixture
def nan_in_fresh_memory() -> Iterator[None]:
    """Fill what `torch.empty` returns with NaN, so that an output that is not written fails."""
    with fresh_memory_is_nan():
        yield


@pytest.fixture
def launched() -> Callable[[str, str], int]:
    """Launches of (op, backend) since the test began."""
    before = ops.launches.copy()
    return lambda op, backend: ops.launches[op, backend] - before[op, backend]


@pytest.fixture(scope="session")
def native_runs() -> Callable[..., AbstractContextManager[None]]:
    """`with native_runs(op, times):` has the native backend run so often, on memory full of NaN.

    For each example of a property, of which `launched` and `nan_in_fresh_memory` know nothing.
    """

    @contextmanager
    def runs(op: str, times: int = 1) -> Iterator[None]:
        before = ops.launches[op, "native"]
        with fresh_memory_is_nan():
            yield
        assert ops.launches[op, "native"] - before == times

    return runs


@pytest.fixture(scope="session")
def within_error_budget() -> Callable[[Tensor, Tensor, Tensor], None]:
    """`check(value, plain, truth)`: at most twice the error of plain torch in the same dtype.

    Of the largest differences from the float64 `truth`; where plain torch happens to be exact, four
    roundings of the largest value are allowed. A float64 value is compared as it is: no truth here
    has more digits.
    """

    def check(value: Tensor, plain: Tensor, truth: Tensor) -> None:
        assert (value.dtype, value.shape) == (plain.dtype, plain.shape)
        assert truth.dtype == torch.float64
        if truth.numel() == 0:
            return
        truth = truth.cpu()
        largest = float(truth.abs().amax())
        if value.dtype == torch.float64:
            assert_close(value.cpu(), truth, rtol=0, atol=1e-12 * largest)
            return
        error, allowed = ((t.double().cpu() - truth).abs().amax() for t in (value, plain))
        assert error <= max(2 * float(allowed), 4 * torch.finfo(value.dtype).eps * largest)

    return check


@pytest.fixture
def allocations() -> Callable[[Callable[[], object]], list[int]]:
    """Bytes of the allocations that a call makes on the CPU."""

    def measure(call: Callable[[], object]) -> list[int]:
        cpu = [ProfilerActivity.CPU]
        with profile(activities=cpu, profile_memory=True, acc_events=True) as profiler:
            call()
        return [e.self_cpu_memory_usage for e in profiler.events() if e.self_cpu_memory_usage > 0]

    return measure


@pytest.fixture
def largest_allocation(
    allocations: Callable[[Callable[[], object]], list[int]],
) -> Callable[[Callable[[], object]], int]:
    """Bytes of the largest single allocation that a call makes on the CPU."""
    return lambda call: max(allocations(call))


@pytest.fixture
def device(backend: str, triton_device: torch.device) -> torch.device:
    """Where the `backend` of a test runs: the native ones of the CAMs on CPU tensors."""
    return torch.device("cpu") if backend == "native" else triton_device


@pytest.fixture
def several_threads() -> Iterator[Iterator[int]]:
    """Numbers of threads, each set for torch as the iterator gives it."""
    before = torch.get_num_threads()

    def numbers() -> Iterator[int]:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            yield count

    yield numbers()
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def irn() -> ModuleType:
    """`irn_definition.py`, the pair losses written pair by pair."""
    path = Path(__file__).with_name("irn_definition.py")
    spec = importlib.util.spec_from_file_location("irn_definition", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
