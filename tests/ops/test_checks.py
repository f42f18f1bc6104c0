"""Argument checks: each error names the op, the argument and what was expected."""

import numpy as np
import pytest
import torch

from c2am.ops import checks

SHAPE = ("K", 3, "S", "S")


def check(value: object, **kwargs: object) -> None:
    checks.tensor("op", "cam", value, SHAPE, checks.FLOATS, **kwargs)  # type: ignore[arg-type]


def test_a_good_tensor_passes() -> None:
    check(torch.zeros(2, 3, 4, 4))
    check(torch.zeros(0, 3, 4, 4, dtype=torch.float64))


@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 2, 4, 4), (2, 3, 4, 5), ()])
def test_wrong_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"op: cam has shape .* expected \(K, 3, S, S\)"):
        check(torch.zeros(shape))


def test_wrong_dtype() -> None:
    with pytest.raises(TypeError, match="op: cam is int64, expected one of float32, float64"):
        check(torch.zeros(2, 3, 4, 4, dtype=torch.int64))


def test_no_tensor() -> None:
    with pytest.raises(TypeError, match="op: cam is list, expected a tensor"):
        check([1.0])


def test_other_device() -> None:
    with pytest.raises(ValueError, match="op: cam is on cpu, expected meta"):
        check(torch.zeros(2, 3, 4, 4), like=torch.zeros(1, device="meta"))


@pytest.mark.parametrize("dtype", checks.FEATURES)
@pytest.mark.parametrize(
    ("bad", "word"), [(float("nan"), "NaN"), (float("inf"), "infinite"), (-float("inf"), "infin")]
)
def test_not_finite(dtype: torch.dtype, bad: float, word: str) -> None:
    value = torch.zeros(5, dtype=dtype)
    checks.finite("op", cam=value, empty=value[:0])
    value[3] = bad
    with pytest.raises(ValueError, match=f"op: cam has {word}"):
        checks.finite("op", cam=value)


@pytest.mark.parametrize("value", [None, "3", (3, 3), torch.ones(1)])
def test_no_number(value: object) -> None:
    with pytest.raises(TypeError, match=r"op: radius is .* expected a number"):
        checks.above("op", 0, radius=value)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"op: steps is .* expected an integer"):
        checks.count("op", steps=value)  # type: ignore[arg-type]


def test_numbers() -> None:
    checks.above("op", 0, radius=np.float32(1), sigma=np.int64(2), compat=True)
    checks.count("op", steps=0, iterations=np.int64(3))
    with pytest.raises(TypeError, match=r"op: steps is 2\.5, expected an integer"):
        checks.count("op", steps=2.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="op: steps is -1, expected at least 0"):
        checks.count("op", steps=-1)


def test_within() -> None:
    checks.within("op", "edge", torch.tensor([0.0, 1.0]), 0, 1)
    checks.within("op", "edge", torch.zeros(0), 0, 1)
    for bad in (-0.5, 1.5):
        with pytest.raises(ValueError, match=r"op: edge has values from .* expected 0 to 1"):
            checks.within("op", "edge", torch.tensor([0.5, bad]), 0, 1)
    with pytest.raises(ValueError, match="op: edge has NaN"):
        checks.within("op", "edge", torch.tensor([0.5, float("nan")]), 0, 1)


@pytest.mark.parametrize("bad", [1, 0, -1, float("nan"), float("inf")])
def test_above(bad: float) -> None:
    checks.above("op", 1, radius=1.5)
    with pytest.raises(ValueError, match=r"op: radius is .*, expected a number above 1"):
        checks.above("op", 1, radius=bad)


def test_choice() -> None:
    checks.choice("op", "pooling", "max", ("mean", "max"))
    with pytest.raises(ValueError, match="op: pooling is 'min', expected one of mean, max"):
        checks.choice("op", "pooling", "min", ("mean", "max"))


def test_no_gradient() -> None:
    value = torch.zeros(1, requires_grad=True)
    with torch.no_grad():
        checks.no_gradient("op", cam=value)
    with pytest.raises(ValueError, match="op: cam requires a gradient"):
        checks.no_gradient("op", cam=value)
