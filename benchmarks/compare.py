"""The ops of this working tree against those of another git revision.

Both are built in a temporary folder. The cases are those of this tree, and each is timed in
processes of the two in turns. An op has no ratios while one of its tests fails there or here.
"""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.table import Table

from benchmarks.results import percentiles

ROOT = Path(__file__).parents[1]
ROUNDS = 5
# Names of tests of an op, beside test_OP*.py: of what it is made of, and of what is made of it.
MORE_TESTS = {
    "dense_crf": ("test_mean_field.py", "test_unary.py", "test_pydensecrf*.py"),
    **dict.fromkeys(
        ("path_affinity", "affinity_loss", "displacement_loss", "random_walk"), ("test_paths.py",)
    ),
}


@dataclass(frozen=True)
class Side:
    """A source tree, and the package built from it."""

    name: str
    source: Path
    package: Path

    def python(self, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        """Run Python with this side's c2am, and the benchmarks of this tree."""
        # The safe path keeps the current folder, which may hold a c2am, out of the search.
        paths = os.pathsep.join([str(self.package), str(ROOT)])
        environment = os.environ | {"PYTHONPATH": paths, "PYTHONSAFEPATH": "1"}
        command = [sys.executable, *arguments]
        return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


def compare(
    reference: str,
    ops: list[str],
    threads: list[int],
    image: Path | None,
    console: Console | None = None,
) -> None:
    """Print how many times as fast as at a revision the ops are here.

    Args:
        reference: Git revision.
        ops: Names of the ops.
        threads: Numbers of threads.
        image: As for the cases.
        console: Where to print.

    Raises:
        subprocess.CalledProcessError: there is no such revision, or a side cannot be built.
        RuntimeError: a case of this tree does not run on one of the sides.
    """
    console = console or Console()
    with TemporaryDirectory(prefix="c2am-compare-") as name:
        folder = Path(name)
        there = folder / "there" / "source"
        _run("git", "worktree", "add", "--detach", str(there), reference)
        try:
            _copy_working_tree(folder / "here" / "source")
            sides = [_build(side, folder / side) for side in ("there", "here")]
            for op in ops:
                console.print(_compare_op(op, sides, threads, image, reference))
        finally:
            _run("git", "worktree", "remove", "--force", str(there))


def _compare_op(
    op: str, sides: list[Side], threads: list[int], image: Path | None, reference: str
) -> Table | str:
    failing = [side.name for side in sides if not _tests_pass(op, side)]
    if failing:
        return f"{op}: no ratios, since its tests fail {' and '.join(failing)}"
    arguments = [op, "--threads", *map(str, threads)]
    arguments += ["--image", str(image.resolve())] if image else []
    rounds = [[_sample(side, arguments) for side in sides] for _ in range(ROUNDS)]
    table = Table("case", "ms there", "ms here", "there / here", title=f"{op}: {reference} / here")
    for name in rounds[0][0]:
        old, new = ([side[name] for side in column] for column in zip(*rounds, strict=True))
        low, middle, high = percentiles([o / n for o, n in zip(old, new, strict=True)])
        times = (f"{percentiles(side)[1]:.3f}" for side in (old, new))
        table.add_row(name, *times, f"{middle:.2f} ({low:.2f} to {high:.2f})")
    return table


def _tests_pass(op: str, side: Side) -> bool:
    patterns = (f"test_{op}*.py", *MORE_TESTS.get(op, ()))
    tests = [str(test) for pattern in patterns for test in (side.source / "tests").rglob(pattern)]
    if not tests:  # without a file, pytest would run others
        return False
    options = ("-q", "-p", "no:cacheprovider")
    return side.python("-m", "pytest", *options, *tests, cwd=side.source).returncode == 0


def _sample(side: Side, arguments: list[str]) -> dict[str, float]:
    done = side.python("-m", "benchmarks.sample", *arguments, cwd=side.package)
    if done.returncode != 0:
        raise RuntimeError(f"{side.name}: {' '.join(arguments)}:\n{done.stderr}")
    answer = json.loads(done.stdout.splitlines()[-1])
    if Path(answer["c2am"]).parent != side.package:
        raise RuntimeError(f"{side.name}: ran {answer['c2am']}, not the package built for it")
    return answer["ms"]


def _copy_working_tree(target: Path) -> None:
    """The files of this tree as they are, without what git ignores."""
    listed = _run("git", "ls-files", "--cached", "--others", "--exclude-standard", "-z")
    for name in listed.split("\0"):
        if name and (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


def _build(name: str, folder: Path) -> Side:
    side = Side(name, folder / "source", folder / "package")
    install = ("-m", "pip", "install", "--quiet", "--no-deps", "--target", str(side.package))
    _run(sys.executable, *install, str(side.source))
    return side


def _run(*command: str) -> str:
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
