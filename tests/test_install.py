"""The source distribution and the wheel: complete, and usable where nothing else of c2am is."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
IGNORED = shutil.ignore_patterns(".*", "build", "dist", "runs", "*.so", "*.egg-info", "__pycache__")


def run(*command: str | Path, **environment: str) -> str:
    """What a command prints. It runs outside the checkout's folder and without its paths."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "C2AM"))}
    done = subprocess.run(
        [str(part) for part in command],
        env=inherited | environment,
        cwd=ROOT.anchor,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build(folder: Path) -> tuple[Path, Path]:
    """The sdist, and the wheel built from it, each in an isolated environment."""
    shutil.copytree(ROOT, folder / "source", ignore=IGNORED)
    out = folder / "dist"
    run(sys.executable, "-m", "build", "--outdir", out, folder / "source", C2AM_CUDA="OFF")
    (sdist,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    return sdist, wheel


def check_sdist_holds_the_sources_of_the_core(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[-1] for name in archive.getnames()}
    sources = {str(file.relative_to(ROOT)) for file in (ROOT / "csrc").rglob("*.*")}
    assert sources | {"CMakeLists.txt", "setup.py", "pyproject.toml"} <= names


def check_wheel_holds_every_module_and_one_core(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {f"c2am/{f.relative_to(ROOT / 'c2am')}" for f in (ROOT / "c2am").rglob("*.py")}
    kernels = {f"c2am/kernels/{f.name}" for f in (ROOT / "kernels").glob("*.py")}
    assert modules | kernels <= names
    assert sum(name.endswith(sysconfig.get_config_var("EXT_SUFFIX")) for name in names) == 1
    assert not any(name.startswith(("tests", "csrc", "benchmarks")) for name in names)


def check_wheel_works_in_an_empty_environment(wheel: Path, folder: Path) -> None:
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", wheel)
    # The dependencies are those of this environment; its own .pth files are not read.
    (site,) = (folder / "lib").glob("python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    run(python, Path(__file__).with_name("wheel.py"))
    assert "train" in run(folder / "bin" / "c2am", "--help")


@pytest.mark.timeout(900)  # it downloads the build tools and compiles
def test_install(tmp_path: Path) -> None:
    """One test, so that parallel workers build only once."""
    sdist, wheel = build(tmp_path)
    check_sdist_holds_the_sources_of_the_core(sdist)
    check_wheel_holds_every_module_and_one_core(wheel)
    check_wheel_works_in_an_empty_environment(wheel, tmp_path / "environment")
