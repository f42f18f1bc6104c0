"""Argument checks of the ops. Every error names the op, the argument and what was expected.

Checks of shape, dtype and device read no values, so the public functions make them and they
trace under `torch.compile`. Checks of values (`finite`, `within`) belong in an operator's kernel,
which only ever sees real tensors: a graph is not broken, and compiled code is checked too. They
read CPU tensors only, since on CUDA they would wait for the device; there a NaN propagates.
"""

import math
from collections.abc import Sequence
from numbers import Integral, Real

import torch
from torch import SymFloat, SymInt, Tensor

FLOATS = (torch.float32, torch.float64)
FEATURES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def tensor(
    op: str,
    name: str,
    value: Tensor,
    shape: Sequence[int | str],
    dtypes: Sequence[torch.dtype],
    like: Tensor | None = None,
) -> None:
    """Check one tensor argument.

    Args:
        op: Name of the op.
        name: Name of the argument.
        value: The argument.
        shape: One entry per dimension: a size, or the letter of a free one; a letter
            that stands twice (`("K", "S", "S")`) is one size.
        dtypes: The dtypes allowed.
        like: A tensor on whose device `value` has to be.

    Raises:
        TypeError: not a tensor, or another dtype.
        ValueError: another shape or device.
    """
    if not isinstance(value, Tensor):
        raise TypeError(f"{op}: {name} is {type(value).__name__}, expected a tensor")
    if value.dtype not in dtypes:
        expected = ", ".join(_short(dtype) for dtype in dtypes)
        raise TypeError(f"{op}: {name} is {_short(value.dtype)}, expected one of {expected}")
    sizes = value.shape
    bound: dict[str, int] = {}
    fits = len(sizes) == len(shape) and all(
        size == (want if isinstance(want, int) else bound.setdefault(want, size))
        for want, size in zip(shape, sizes, strict=True)
    )
    if not fits:
        expected = ", ".join(str(size) for size in shape)
        raise ValueError(f"{op}: {name} has shape {tuple(sizes)}, expected ({expected})")
    if like is not None and value.device != like.device:
        raise ValueError(f"{op}: {name} is on {value.device}, expected {like.device}")


def finite(op: str, **values: Tensor) -> None:
    """Check CPU tensors for NaN and infinity.

    Raises:
        ValueError: names the first such argument.
    """
    for name, value in values.items():
        if value.device.type == "cpu" and value.numel() > 0:
            _range(op, name, value)


def within(op: str, name: str, value: Tensor, low: float, high: float) -> None:
    """Check that a CPU tensor is finite and all of it in `[low, high]`.

    Raises:
        ValueError: names the argument.
    """
    if value.device.type != "cpu" or value.numel() == 0:
        return
    smallest, largest = _range(op, name, value)
    if smallest < low or largest > high:
        got = f"has values from {smallest:g} to {largest:g}"
        raise ValueError(f"{op}: {name} {got}, expected {low:g} to {high:g}")


def above(op: str, bound: float, **values: float) -> None:
    """Check that numbers are finite and above a bound.

    Raises:
        TypeError: names the first that is not a number.
        ValueError: names the first that is not in range.
    """
    for name, value in values.items():
        if not isinstance(value, int | float | SymInt | SymFloat | Real):
            raise TypeError(f"{op}: {name} is {value!r}, expected a number")
        if not bound < value < math.inf:
            raise ValueError(f"{op}: {name} is {value}, expected a number above {bound}")


def count(op: str, **values: int) -> None:
    """Check that numbers are whole and not negative.

    Raises:
        TypeError: names the first that is not an integer.
        ValueError: names the first that is negative.
    """
    for name, value in values.items():
        if not isinstance(value, int | SymInt | Integral):
            raise TypeError(f"{op}: {name} is {value!r}, expected an integer")
        if value < 0:
            raise ValueError(f"{op}: {name} is {value}, expected at least 0")


def choice(op: str, name: str, value: str, choices: Sequence[str]) -> None:
    """Check that a word is one of `choices`.

    Raises:
        ValueError: lists them.
    """
    if value not in choices:
        raise ValueError(f"{op}: {name} is {value!r}, expected one of {', '.join(choices)}")


def no_gradient(op: str, **values: Tensor) -> None:
    """Check that no gradient is asked of an op (or of an argument) that gives none.

    Raises:
        ValueError: names the first argument that requires a gradient.
    """
    for name, value in values.items():
        if value.requires_grad and torch.is_grad_enabled():
            how = "detach it, or call this under torch.no_grad()"
            raise ValueError(f"{op}: {name} requires a gradient, which the op does not give; {how}")


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype to compute in: float64 for float64, float32 for everything narrower."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _range(op: str, name: str, value: Tensor) -> tuple[float, float]:
    # amin and amax propagate NaN, so one pass finds NaN, infinities and the range.
    low, high = (float(bound) for bound in torch.aminmax(value))
    if not (math.isfinite(low) and math.isfinite(high)):
        found = "NaN" if math.isnan(low) else "infinite values"
        raise ValueError(f"{op}: {name} has {found}, expected finite values")
    return low, high


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
