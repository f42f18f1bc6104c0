"""The native ops compiled for each instruction set that this processor has."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

# dense_crf has its own test of this, test_all_instruction_sets_agree.
OPS = (
    "extract_cam",
    "multi_scale_cam",
    "normalize_cam",
    "accumulate_global_cam",
    "front_door_logits",
    "path_affinity",
    "affinity_loss",
    "displacement_loss",
    "random_walk",
    "label_maps",
    "mean_field",
)
SELECTED = "(native or mean_field) and not opcheck"


def python(isa: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | {"C2AM_ISA": isa},
        check=False,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("isa", ["scalar", "avx2", "avx512"])
def test_native_ops_pass_on(isa: str) -> None:
    loaded = python(isa, "-c", "from c2am import _core; print(_core.isa)")
    if "this processor has no more than" in loaded.stderr:
        pytest.skip(f"this processor has no {isa}")
    assert loaded.stdout.strip() == isa
    files = (str(Path(__file__).with_name(f"test_{op}.py")) for op in OPS)
    options = ("-q", "-p", "no:cacheprovider", "-k", SELECTED)
    result = python(isa, "-m", "pytest", *options, *files)
    assert result.returncode == 0, result.stdout
