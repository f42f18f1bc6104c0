"""The benchmarks: turns, baselines, memory, the CSV, the table and the comparison of revisions."""

import dataclasses
import json
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
import torch
from rich.table import Table
from torch.testing import assert_close

from benchmarks import compare, gather, memory, results, runner, sample, table
from benchmarks.__main__ import main
from benchmarks.ops import compiled, op_names
from benchmarks.runner import Case, Entry, Work
from benchmarks.stages import TRAINED
from c2am import ops
from c2am.config import TrainConfig

ROOT = Path(__file__).parents[1]


def nothing() -> None:
    """A provider."""


@pytest.fixture
def rows() -> list[results.Row]:
    case = Case(
        "7x3",
        {"native": nothing, "reference": nothing},
        peers={"json tool": nothing},
        work={"native": lambda: Work(bytes=2e9, flops=4e9)},
    )
    timed = runner.entries(case, [1, 2], peers=True)
    samples = {entry: [40.0, 50.0, 60.0] for entry in timed}
    samples[timed[0]] = [10.0, 10.0, 10.0]
    triads = {1: 400e9, 2: 600e9}
    return results.make_rows(
        "front_door", case, samples, clock="wall", triads=triads, peaks={timed[0]: 5_000_000}
    )


def test_providers_are_timed_in_turns():
    order: list[str] = []

    def call(name: str) -> None:
        order.append(name)
        time.sleep(0.03)

    case = Case("", {name: partial(call, name) for name in "ab"})
    timed = runner.entries(case, [1], peers=False)
    times = runner.time_entries(timed, budget_s=0, clock="wall", least=3)
    assert order == ["a", "b"] * 4
    assert [len(values) for values in times.values()] == [3, 3]


@pytest.mark.parametrize("clock", ["wall", "cpu"])
def test_short_calls_are_repeated_and_their_mean_counts(clock):
    spent = []

    def spin() -> None:
        start = time.perf_counter()
        while time.perf_counter() - start < 0.002:
            pass
        spent.append(time.perf_counter() - start)

    found = runner.milliseconds(spin, clock)
    assert len(spent) > 1
    assert 0 < found < 1.5 * 1e3 * sum(spent) / len(spent)


def test_peers_run_on_one_thread_and_only_if_installed_and_wanted():
    case = Case("", {"native": nothing}, peers={"json x": nothing, "no_such_module": nothing})
    assert runner.missing_peers(case) == ["no_such_module"]
    with_peers = runner.entries(case, [1, 2], peers=True)
    assert [(e.provider, e.threads) for e in with_peers] == [
        ("native", 1),
        ("native", 2),
        ("json x", 1),
    ]
    assert len(runner.entries(case, [1, 2], peers=False)) == 2


def test_what_computes_on_the_host_beside_a_gpu_gets_the_wall_clock():
    case = Case("", {"native": nothing, "native cpu": nothing}, on_host=frozenset({"native cpu"}))
    timed = runner.entries(case, [1], peers=False)
    clocks = [[runner.clock_of(entry, clock) for entry in timed] for clock in ("gpu", "cpu")]
    assert clocks == [["gpu", "wall"], ["cpu", "cpu"]]
    kept = results.make_rows(
        "op", case, {entry: [1.0] for entry in timed}, clock="gpu", triads={1: 1e9}, peaks={}
    )
    assert [row.clock for row in kept] == ["gpu", "wall"]


@pytest.mark.parametrize(
    ("named", "peers", "expected"),
    [
        ("", True, ("json", 1)),
        ("", False, ("reference", 2)),
        ("native", True, ("native", 2)),
    ],
)
def test_baseline_is_the_named_one_then_a_peer_then_the_reference(named, peers, expected):
    providers = {"native": nothing, "reference": nothing}
    case = Case("", providers, peers={"json": nothing}, baseline=named)
    timed = runner.entries(case, [1, 2], peers=peers)
    base = runner.baseline(case, timed, Entry("native", 2, nothing))
    assert (base.provider, base.threads) == expected


def test_rows_hold_ratios_to_the_baseline_of_the_same_turn(rows):
    native = rows[0]
    assert native.baseline == "json tool x1"
    assert (native.ratio_p20, native.ratio_p50, native.ratio_p80) == (4.4, 5.0, 5.6)
    assert native.scaling_p50 == ""
    on_two = rows[2]
    assert (on_two.scaling_p20, on_two.scaling_p50, on_two.scaling_p80) == (0.18, 0.2, 0.23)
    assert (native.gbyte, native.gflop, native.peak_mb) == (2.0, 4.0, 5.0)
    assert (native.triad_gb_s, rows[2].triad_gb_s) == (400.0, 600.0)
    assert (rows[1].gbyte, rows[1].peak_mb) == ("", "")


def test_new_rows_replace_those_of_their_op_and_device(tmp_path, rows):
    path = tmp_path / "ops.csv"
    other = dataclasses.replace(rows[0], benchmark="random_walk")
    elsewhere = dataclasses.replace(rows[0], device="another")
    results.write_rows(path, [other, elsewhere])
    results.write_rows(path, rows)
    results.write_rows(path, rows[:2])
    kept = [(row["benchmark"], row["device"]) for row in results.read_rows(path)]
    here = rows[0].device
    expected = [("front_door", "another"), ("front_door", here), ("front_door", here)]
    assert sorted(kept) == sorted([*expected, ("random_walk", here)])


def test_table_says_what_the_rows_say(tmp_path, rows):
    results.write_rows(tmp_path / "ops.csv", rows)
    text = table.markdown(results.read_rows(tmp_path / "ops.csv"))
    assert f"### {rows[0].device}" in text
    cells = "10.0 (10.0 to 10.0) | 5.00 (4.40 to 5.60) | json tool x1 |  | 5.0 | 200 | 50% | 400"
    assert f"| 7x3 | native | 1 | {cells} |" in text
    assert "| json tool x1 | 0.200 (0.180 to 0.230) |" in text
    assert "| 7x3 | json tool | 1 | 50.0 (44.0 to 56.0) |  |  |  |  |  |  |  |" in text


def test_docs_have_the_table_of_the_recorded_results():
    document = table.DOCUMENT.read_text(encoding="utf-8")
    rows = results.read_rows(results.FOLDER / "ops.csv")
    assert table.updated(document, "ops", table.markdown(rows)) == document, (
        "run python -m benchmarks table"
    )


def test_document_without_markers_is_refused():
    with pytest.raises(ValueError, match="expected the lines"):
        table.updated("no table here", "ops", "")


def test_peak_memory_is_that_of_the_call(monkeypatch):
    freed = [b"x" * 100_000 for _ in range(1500)]  # small enough for the heap, which stays as large
    held = freed[-1]
    del freed

    def allocate() -> int:
        return len(bytearray(b"x" * 100_000_000))  # the literal and its copy

    case = Case("", {"small": nothing, "large": allocate})
    monkeypatch.setattr(memory, "cases", lambda op, image: iter([Case("", {}), case]))
    assert memory._measure("op", 1, "small", None) < 5e6
    assert 190e6 < memory._measure("op", 1, "large", None) < 210e6
    assert held


def test_peak_memory_is_measured_in_a_process_of_its_own():
    native = Entry("native", 1, nothing)
    padded = 4 * 3 * 98 * 129  # one of the vectors of 3 maps of 94 x 125 that the walk needs
    assert padded < memory.peak_of("random_walk", 0, native, None) < 500e6
    with pytest.raises(RuntimeError, match="KeyError"):
        memory.peak_of("random_walk", 0, Entry("no such provider", 1, nothing), None)


def test_ops_command_writes_rows(tmp_path, monkeypatch):
    case = Case("7x3", {"reference": nothing, "native": nothing, "compiled reference": nothing})
    monkeypatch.setattr("benchmarks.__main__.cases", lambda op, image: iter([case]))
    output = tmp_path / "ops.csv"
    command = ["ops", "--op", "random_walk", "--threads", "1", "2", "--budget", "0", "--no-memory"]
    main([*command, "--compiled", "--output", str(output)])
    assert len(results.read_rows(output)) == 6
    main([*command, "--no-compiled", "--output", str(output)])
    rows = results.read_rows(output)
    timed = [(row["provider"], row["threads"], row["baseline"]) for row in rows]
    assert timed == [
        (name, str(threads), f"reference x{threads}")
        for threads in (1, 2)
        for name in ("reference", "native")
    ]
    assert all(float(row["triad_gb_s"]) > 0 for row in rows)


def test_an_op_whose_tests_fail_has_no_ratios(tmp_path):
    side = compare.Side("there", tmp_path, ROOT)
    answer = compare._compare_op("dense_crf", [side], [1], None, "REF")
    assert answer == "dense_crf: no ratios, since its tests fail there"  # there are none
    tests = [tmp_path / "tests" / name for name in ("ops/test_dense_crf.py", "test_pydensecrf.py")]
    tests[0].parent.mkdir(parents=True)
    for broken in (0, 1, None):
        for number, test in enumerate(tests):
            test.write_text(f"def test(): import c2am._core; assert {number != broken}\n")
        assert compare._tests_pass("dense_crf", side) == (broken is None)


def test_every_test_of_an_op_is_run_before_it_is_compared(tmp_path):
    commands: list[tuple[str, ...]] = []

    class Listing(compare.Side):
        def python(self, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
            commands.append(arguments)
            return subprocess.CompletedProcess(arguments, 0)

    run = {}
    for op in op_names():
        assert compare._tests_pass(op, Listing("here", ROOT, tmp_path))
        run[op] = {Path(file).name for file in commands.pop() if file.endswith(".py")}
        assert f"test_{op}.py" in run[op]
    crf = "mean_field", "unary", "pydensecrf", "dense_crf_gpu", "dense_crf_properties"
    assert {f"test_{name}.py" for name in crf} <= run["dense_crf"]
    assert run["random_walk"] == {"test_random_walk.py", "test_random_walk_gpu.py", "test_paths.py"}


class Answering(compare.Side):
    """A side whose processes take no time: it tells these times."""

    def __init__(self, name: str, package: Path, milliseconds: list[float], log: list[str]):
        super().__init__(name, package, package)
        self.__dict__.update(milliseconds=iter(milliseconds), log=log)

    def python(self, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        self.log.append(self.name)
        answer = {
            "c2am": str(self.package / "c2am"),
            "ms": {"7x3, native": next(self.milliseconds)},
        }
        return subprocess.CompletedProcess(arguments, 0, stdout=json.dumps(answer))


def test_sides_are_compared_by_processes_in_turns(tmp_path, monkeypatch):
    monkeypatch.setattr(compare, "ROUNDS", 3)
    monkeypatch.setattr(compare, "_tests_pass", lambda op, side: True)
    log: list[str] = []
    there = Answering("there", tmp_path / "a", [30.0, 40.0, 60.0], log)
    here = Answering("here", tmp_path / "b", [10.0, 10.0, 20.0], log)
    answer = compare._compare_op("random_walk", [there, here], [1], None, "REF")
    assert isinstance(answer, Table)
    cells = [next(iter(column.cells)) for column in answer.columns]
    assert cells == ["7x3, native", "40.000", "10.000", "3.00 (3.00 to 3.60)"]
    assert log == ["there", "here"] * 3


def test_a_side_that_runs_another_package_is_an_error(tmp_path):
    class Elsewhere(Answering):
        def python(self, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
            answer = {"c2am": str(ROOT / "c2am"), "ms": {}}
            return subprocess.CompletedProcess(arguments, 0, stdout=json.dumps(answer))

    with pytest.raises(RuntimeError, match="not the package built for it"):
        compare._sample(Elsewhere("there", tmp_path, [], []), ["random_walk"])


def test_sample_times_all_but_the_reference(monkeypatch, capsys):
    case = Case("7x3", {"reference": nothing, "native": nothing})
    monkeypatch.setattr(sample, "cases", lambda op, image: iter([case]))
    monkeypatch.setattr(sys, "argv", ["sample", "random_walk", "--threads", "1", "2"])
    sample.main()
    answer = json.loads(capsys.readouterr().out)
    assert Path(answer["c2am"], "__init__.py").is_file()
    assert list(answer["ms"]) == ["7x3, native x1", "7x3, native x2"]


def test_plain_versions_are_compiled_when_they_are_first_called(monkeypatch):
    made: list[object] = []
    monkeypatch.setattr(torch.compiler, "reset", lambda: None)
    monkeypatch.setattr(torch, "compile", lambda plain, dynamic: made.append(plain) or plain)
    ((name, call),) = compiled(divmod, 7, 3).items()
    assert (name, made) == ("compiled reference", [])
    assert [call(), call()] == [(2, 1)] * 2
    assert made == [divmod]


def test_gathered_pairs_are_those_of_the_ops():
    edge, field = torch.rand(2, 1, 12, 14), torch.randn(2, 2, 12, 14)
    label = torch.tensor([0, 1, 2, 255])[torch.randint(0, 4, (2, 12, 14))]
    pairs = gather.Pairs((12, 14), 4, edge.device)
    affinity = gather.path_affinity(edge, pairs.source, pairs.paths)
    ours = ops.path_affinity(edge, radius=4)
    assert_close(affinity.sort(1).values, ours.sort(1).values)
    arguments = (label, pairs.source, pairs.paths, pairs.target)
    total = ops.affinity_loss(edge, label, radius=4, num_classes=2).total
    assert_close(gather.affinity_loss(edge, *arguments), total)
    total = ops.displacement_loss(field, label, radius=4).total
    assert_close(
        gather.displacement_loss(field, label, pairs.source, pairs.target, pairs.steps), total
    )


@pytest.fixture
def stand_ins(tmp_path, monkeypatch):
    """In the place of Python, whose tests fail, and of tools; the file of their arguments.

    There is no DALI, or whatever `MISSING` says.
    """
    calls = tmp_path / "calls"
    for name in ("python", "nvidia-smi", "compute-sanitizer"):
        script = tmp_path / name
        failing = 'case "$*" in *"-m pytest"* | *${MISSING-dali}*) exit 1; esac'
        script.write_text(f'#!/bin/sh\necho "{name} $*" >> {calls}\n{failing}\n')
        script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("PYTHON", str(tmp_path / "python"))
    return calls


@pytest.mark.parametrize(
    ("part", "tested", "timed"),
    [
        ([], True, op_names()),
        (["tests"], True, []),
        (["ops", "extract_cam"], False, ["extract_cam"]),
        (["sanitize"], True, []),
        (["stages", "--rounds", "1"], True, []),
    ],
    ids=str,
)
def test_gpu_script_does_the_rest_after_a_failure(tmp_path, stand_ins, part, tested, timed):
    command = ["bash", "benchmarks/gpu.sh", str(tmp_path / "folder"), *part]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == int(tested), done.stdout + done.stderr
    lines = stand_ins.read_text().splitlines()
    assert any("pip install" in line for line in lines)
    assert any("-m pytest" in line for line in lines) == tested
    ops = [line.split()[line.split().index("--op") + 1] for line in lines if "--op" in line]
    assert sorted(ops) == timed
    assert all("--output" in line for line in lines if "-m benchmarks" in line)
    assert any("benchmarks stages" in line for line in lines) == ("stages" in part)
    seconds = (tmp_path / "folder" / "seconds.txt").read_text().splitlines()
    assert len(seconds) > len(timed)


def test_gpu_script_makes_every_figure_of_the_stages(tmp_path, stand_ins, monkeypatch):
    """All stages, class maps at six scales, and each mode of the compiler for each training."""
    monkeypatch.setenv("MISSING", "nothing")
    command = ["bash", "benchmarks/gpu.sh", str(tmp_path / "folder")]
    subprocess.run(command, cwd=ROOT, capture_output=True)
    lines = [line for line in stand_ins.read_text().splitlines() if "benchmarks stages" in line]
    assert sum("--stage " not in line for line in lines) == 1
    (six,) = (line for line in lines if "--stage cam" in line)
    assert six.split("--cam.scales [")[1].split("]")[0].count(",") == 5
    modes = get_args(get_type_hints(TrainConfig)["compile_mode"])
    expected = {f"--{stage}.compile_mode {mode}" for stage in TRAINED for mode in modes}
    found = {line.split("network ")[1].split(" --output")[0] for line in lines if "network" in line}
    assert found == expected
    assert (tmp_path / "folder" / "stages.md").exists()
