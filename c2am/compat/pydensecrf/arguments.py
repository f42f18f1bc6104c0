"""What the interface of pydensecrf demands of its arguments; every error names the argument."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import DTypeLike


def array(name: str, value: object, dtype: DTypeLike, shape: Sequence[int | str]) -> np.ndarray:
    """A copy of what `view` gives."""
    return view(name, value, dtype, shape).copy(order="C")


def view(name: str, value: object, dtype: DTypeLike, shape: Sequence[int | str]) -> np.ndarray:
    """`value`, which is a C-contiguous array.

    Args:
        name: name of the argument.
        value: the argument: an array, or what exports a buffer.
        dtype: the dtype that it has to have.
        shape: one entry per dimension: a size, or the letter of a free one.

    Raises:
        TypeError: not an array.
        ValueError: another dtype, shape or layout.
    """
    if not isinstance(value, np.ndarray):
        try:
            value = np.asarray(memoryview(value))  # type: ignore[arg-type]
        except TypeError:
            raise TypeError(f"{name}: expected an array, got {type(value).__name__}") from None
    if value.dtype != dtype:
        wanted = np.dtype(dtype)
        how = f"{name}.astype(np.{wanted})"
        raise ValueError(f"{name}: expected dtype {wanted}, got {value.dtype}; use {how}")
    fits = value.ndim == len(shape) and all(
        isinstance(want, str) or size == want for want, size in zip(shape, value.shape, strict=True)
    )
    if not fits:
        expected = ", ".join(str(size) for size in shape)
        raise ValueError(f"{name}: expected shape ({expected}), got {value.shape}")
    if not value.flags.c_contiguous:
        how = f"np.ascontiguousarray({name})"
        raise ValueError(f"{name}: expected a C-contiguous array; use {how}")
    return value


def finite(name: str, value: np.ndarray) -> np.ndarray:
    """`value`, unless it has NaN or infinity.

    Raises:
        ValueError: it has.
    """
    if not np.isfinite(value).all():
        raise ValueError(f"{name}: has NaN or infinity, expected finite numbers")
    return value


def whole(name: str, value: float, least: int) -> int:
    """An integer, or a float that is one, of `least` at least.

    Raises:
        TypeError, ValueError: it is not.
    """
    number = float(value)
    if not number.is_integer() or number < least:
        raise ValueError(f"{name} = {value}: expected an integer of at least {least}")
    return int(number)


def deviations(name: str, value: float | Sequence[float], count: int) -> tuple[float, ...]:
    """`count` standard deviations, from so many numbers or from one for all.

    Raises:
        ValueError: they are not, or not above 0.
    """
    if np.shape(value) not in ((), (count,)):
        raise ValueError(f"{name} = {value}: expected a number or {count} of them")
    numbers = np.broadcast_to(np.asarray(value, np.float64), count)
    if not all(0 < number < math.inf for number in numbers):
        raise ValueError(f"{name} = {value}: expected numbers above 0")
    return tuple(numbers.tolist())
