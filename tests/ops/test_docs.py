"""The examples of the docs run, and the table of docs/ops.md has every op with its backends."""

import doctest
from pathlib import Path

import pytest

from c2am.ops import dispatch

DOCS = Path(__file__).parents[2] / "docs" / "ops.md"


@pytest.mark.parametrize("name", ["ops.md", "crf.md"])
def test_examples_run(name: str) -> None:
    result = doctest.testfile(str(DOCS.with_name(name)), module_relative=False)
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize("op", dispatch.ops())
def test_table_has_the_op_with_its_backends(op: str) -> None:
    (row,) = (line for line in DOCS.read_text().splitlines() if line.startswith(f"| `{op}` |"))
    cpu, cuda = row.split("|")[-3:-1]
    # On CPU tensors Triton is there for its interpreter only.
    implemented = [b for b in dispatch._of(op, "cpu") if b != "triton"]
    assert cpu.strip() == ", ".join(implemented)
    assert cuda.strip() == ", ".join(dispatch._of(op, "cuda"))
