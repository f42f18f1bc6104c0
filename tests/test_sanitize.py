"""`make sanitize` runs the C++ of every op, `make cuda` compiles what a GPU runs."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OPS = sorted(folder.name for folder in (ROOT / "csrc").iterdir() if folder.is_dir())


@pytest.mark.parametrize("op", OPS)
def test_every_op_of_the_core_has_a_native_test(op):
    tests = "".join(file.read_text() for file in (ROOT / "tests" / "native").glob("*.cpp"))
    assert f"NATIVE_TEST({op})" in tests, "make sanitize must run it"


@pytest.mark.parametrize("sanitizer", ["address", "thread"])
def test_every_source_of_the_core_is_compiled(sanitizer):
    make = shutil.which("make")
    assert make is not None
    command = [make, "--always-make", "--dry-run", "-f", "tests/native/Makefile"]
    target = f"build/native/{sanitizer}/core"
    plan = subprocess.run([*command, target], cwd=ROOT, capture_output=True, text=True, check=True)
    sources = {str(f.relative_to(ROOT)) for f in (ROOT / "csrc").rglob("*.cpp")}
    to_python = {s for s in sources if s == "csrc/module.cpp" or s.endswith("_bind.cpp")}
    missing = {source for source in sources - to_python if f"-c {source} " not in plan.stdout}
    assert not missing
    assert f"-fsanitize={sanitizer}" in plan.stdout


def test_every_kernel_is_compiled_and_a_failure_is_one():
    plan = subprocess.run(
        ["make", "--always-make", "--dry-run", "cuda"], cwd=ROOT, capture_output=True, text=True
    )
    sources = {str(f.relative_to(ROOT)) for f in (ROOT / "csrc").rglob("*.cu")}
    assert sources
    assert all(f"-c {source} " in plan.stdout for source in sources)
    failing = ["make", "cuda", "NVCC=false", "ARCH=none"]  # of which nothing has been compiled
    assert subprocess.run(failing, cwd=ROOT, capture_output=True).returncode != 0
