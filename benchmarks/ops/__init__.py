"""One file per op: its inputs at the pipeline's shapes, in `cases()`."""

import functools
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from benchmarks.runner import Case
from c2am.ops import available


def op_names() -> list[str]:
    """Names of the ops that have a benchmark."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def cases(op: str, image: Path | None = None) -> Iterator[Case]:
    """The benchmark cases of an op.

    Args:
        op: Name of the op.
        image: A photograph for the ops whose cost hangs on the image: those whose `cases` take
            one. Default: a drawn image.
    """
    make = importlib.import_module(f"{__name__}.{op}").cases
    return make(image) if inspect.signature(make).parameters else make()


def providers(
    op: str, call: Callable[..., object], device: torch.device
) -> dict[str, Callable[[], object]]:
    """`call(backend=...)` for every backend that runs here, but for Triton's interpreter."""
    reasons = available(op, device)
    names = [name for name, reason in reasons.items() if reason is None]
    if device.type == "cpu":
        names = [name for name in names if name != "triton"]
    return {name: functools.partial(call, backend=name) for name in names}
