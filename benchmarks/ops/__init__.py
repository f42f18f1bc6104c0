"""One file per op: its inputs at the pipeline's shapes, in `cases()`."""

import functools
import importlib
import pkgutil
from collections.abc import Callable, Iterator

import torch

from benchmarks.runner import Case
from c2am.ops import available


def op_names() -> list[str]:
    """Names of the ops that have a benchmark."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def cases(op: str) -> Iterator[Case]:
    """The benchmark cases of an op."""
    return importlib.import_module(f"{__name__}.{op}").cases()


def providers(
    op: str, call: Callable[..., object], device: torch.device
) -> dict[str, Callable[[], object]]:
    """`call(backend=...)` for every backend that runs here, but for Triton's interpreter."""
    reasons = available(op, device)
    names = [name for name, reason in reasons.items() if reason is None]
    if device.type == "cpu":
        names = [name for name in names if name != "triton"]
    return {name: functools.partial(call, backend=name) for name in names}
