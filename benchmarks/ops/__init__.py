"""One file per op: its inputs at the pipeline's shapes, in `cases()`."""

import functools
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.runner import Case
from c2am.ops import available
from c2am.ops.dispatch import resolve

COMPILED = "compiled reference"


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


class _Compiled:
    """`torch.compile` of a function, made when it is first called.

    Anew for each case: of one function Dynamo compiles eight versions at most.
    """

    def __init__(self, plain: Callable[..., Any]) -> None:
        self._plain = plain
        self._function: Callable[..., Any] | None = None

    def __call__(self, *arguments: Any) -> Any:
        if self._function is None:
            torch.compiler.reset()
            self._function = torch.compile(self._plain, dynamic=False)
        return self._function(*arguments)


def compiled(plain: Callable[..., Any], *arguments: Any) -> dict[str, Callable[..., Any]]:
    """The provider `torch.compile` of a plain version, called with `arguments`."""
    return {COMPILED: functools.partial(_Compiled(plain), *arguments)}


def reference(op: str, device: torch.device) -> Callable[..., Any]:
    """The reference of an op itself, which `torch.compile` sees through, unlike the operator."""
    return resolve(op, "reference", device)[1]
