"""The backends of the ops: which exist, which are available here, and which one `auto` takes.

An op file registers its implementations, per device type and fastest first, and defines one
`torch.library` operator whose last argument is the backend's name:

    dispatch.register("normalize_cam", cpu={"reference": _reference},
                      cuda={"triton": _triton, "reference": _reference})
    dispatch.define("normalize_cam", "(Tensor cam, float eps, str backend) -> Tensor",
                    kernel=_kernel, fake=_fake)

The backend is resolved inside the operator's kernel, on real tensors, so a compiled graph holds
the operator alone and is never broken by the choice.
"""

import importlib
import importlib.util
import os
from collections import Counter
from collections.abc import Callable, Mapping
from functools import cache, wraps
from typing import Any, Literal

import torch

Backend = Literal["auto", "reference", "native", "triton"]
Implementations = Mapping[str, Callable[..., Any]]

BACKENDS = ("reference", "native", "triton")

launches: Counter[tuple[str, str]] = Counter()
"""Launches of compiled and Triton code by (op, backend), counted beside the launch itself."""

_implementations: dict[str, dict[str, Implementations]] = {}

if hasattr(os, "register_at_fork"):
    # OpenMP's threads do not live on in a forked process, where an op of torch or of the core would
    # wait for them for ever. Processes of a pool have their parallelism already.
    os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))


class BackendError(RuntimeError):
    """A backend was asked for that is not available; the message says how to get it."""


def register(op: str, *, cpu: Implementations, cuda: Implementations) -> None:
    """Declare the implementations of an op for each device type, the fastest first.

    `auto` takes the first that is available. Every op has a `reference`, which also serves the
    device types that are not listed.
    """
    for device_type, implementations in (("cpu", cpu), ("cuda", cuda)):
        unknown = set(implementations) - set(BACKENDS)
        if unknown or "reference" not in implementations:
            raise ValueError(f"{op}: {device_type} needs 'reference' and knows no {unknown}")
    _implementations[op] = {"cpu": cpu, "cuda": cuda}


def define(
    op: str,
    schema: str,
    *,
    kernel: Callable[..., Any],
    fake: Callable[..., Any],
    setup_context: Callable[..., None] | None = None,
    backward: Callable[..., Any] | None = None,
) -> None:
    """Register `c2am::<op>` with torch: schema, kernel for any device, fake kernel, autograd.

    The kernel computes in the dtypes that it chooses, whatever autocast is on around it, with the
    GPU of its first tensor as the current one.
    """
    name = f"c2am::{op}"
    torch.library.define(name, schema, tags=(torch.Tag.pt2_compliant_tag,))
    torch.library.impl(name, "default", _guarded(kernel))
    torch.library.register_fake(name, fake)
    if backward is not None:
        torch.library.register_autograd(name, backward, setup_context=setup_context)


def _guarded(kernel: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(kernel)
    def guarded(*arguments: Any) -> Any:
        values = (a[0] if isinstance(a, list) and a else a for a in arguments)
        first = next(value for value in values if isinstance(value, torch.Tensor))
        # Triton launches on the current GPU, whichever the tensors are on.
        with torch.autocast(first.device.type, enabled=False), torch.cuda.device_of(first):
            return kernel(*arguments)

    return guarded


def ops() -> tuple[str, ...]:
    """Names of all registered ops."""
    return tuple(sorted(_implementations))


def available(op: str, device: torch.device | str) -> dict[str, str | None]:
    """Each backend of `op` on `device`, with None if it is available or else how to get it.

    Raises ValueError for an op that does not exist.
    """
    return {backend: _missing(op, backend, _type(device)) for backend in BACKENDS}


def backend_of(op: str, device: torch.device | str) -> str:
    """The backend that `auto` takes for tensors on `device`.

    Raises ValueError for an op that does not exist.
    """
    return resolve(op, "auto", device)[0]


def resolve(op: str, backend: str, device: torch.device | str) -> tuple[str, Callable[..., Any]]:
    """The name and the implementation of a backend.

    Raises ValueError for an unknown op or backend, BackendError for one that is not available.
    """
    device_type = _type(device)
    implementations = _of(op, device_type)
    if backend == "auto":
        backend = next(b for b in implementations if _missing(op, b, device_type) is None)
    elif backend not in BACKENDS:
        known = ", ".join(("auto", *BACKENDS))
        raise ValueError(f"{op}: backend is {backend!r}, expected one of {known}")
    elif (reason := _missing(op, backend, device_type)) is not None:
        raise BackendError(f"{op}: backend {backend!r} is not available: {reason}")
    return backend, implementations[backend]


def _type(device: torch.device | str) -> str:
    return torch.device(device).type


def _of(op: str, device_type: str) -> Implementations:
    if op not in _implementations:
        raise ValueError(f"no op is called {op!r}; there are: {', '.join(ops())}")
    by_device = _implementations[op]
    return by_device.get(device_type) or {"reference": by_device["cpu"]["reference"]}


def _missing(op: str, backend: str, device_type: str) -> str | None:
    """None if the backend can run, else the reason with how to get it."""
    implementations = _of(op, device_type)
    if backend not in implementations:
        have = ", ".join(implementations)
        return f"{op} has none for {device_type} tensors, which it computes with: {have}"
    if backend != "reference" and device_type == "cuda" and not torch.cuda.is_available():
        return "torch finds no CUDA device; see https://pytorch.org/get-started for a CUDA build"
    if backend == "native":
        return _missing_core(device_type)
    if backend == "triton":
        return _missing_triton(device_type)
    return None


def save_gradient(
    ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, torch.Tensor]
) -> None:
    """`setup_context` of an op that gives, beside its result, the gradient by its first input."""
    ctx.dtype = inputs[0].dtype
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(output[1])


@cache
def _missing_core(device_type: str) -> str | None:
    if importlib.util.find_spec("c2am._core") is None:
        return "the compiled core c2am._core is not built; run `pip install .` in the checkout"
    core = importlib.import_module("c2am._core")
    if device_type == "cuda" and not core.has_cuda:
        return (
            "the compiled core was built without CUDA; put nvcc on PATH and run "
            "`C2AM_CUDA=ON pip install .` in the checkout"
        )
    return None


def _missing_triton(device_type: str) -> str | None:
    if not _has_triton():
        return "Triton is not installed; run `pip install triton` (Linux)"
    if device_type == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
        return (
            "CPU tensors need Triton's interpreter (slow, for tests); set TRITON_INTERPRET=1 "
            "before Python starts"
        )
    return None


@cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None
