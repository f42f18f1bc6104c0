"""Timing, the machine's description, and the results table that all benchmarks share."""

import csv
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path

import torch


@dataclass(frozen=True)
class Case:
    """One set of inputs of an op, and the ways to compute it that are timed side by side."""

    shape: str
    providers: dict[str, Callable[[], object]]


@dataclass(frozen=True)
class Row:
    """One line of the results table; times in milliseconds."""

    benchmark: str
    shape: str
    provider: str
    p20_ms: float
    p50_ms: float
    p80_ms: float
    repeats: int
    threads: int
    device: str
    torch: str
    c2am: str
    date: str


def device_name() -> str:
    """The GPU, or the processor and its core count."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor()
    return f"{name}, {len(os.sched_getaffinity(0))} cores"


def _timed(function: Callable[[], object]) -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    function()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return (time.perf_counter() - start) * 1e3


def time_case(benchmark: str, case: Case, budget_s: float = 6.0) -> Iterator[Row]:
    """Time the providers of a case in turns, so that a noisy machine is noisy for all of them."""
    from c2am import __version__

    first = {name: _timed(function) for name, function in case.providers.items()}
    repeats = max(5, min(50, int(budget_s * 1e3 / max(sum(first.values()), 1e-3))))
    times: dict[str, list[float]] = {name: [] for name in case.providers}
    for _ in range(repeats):
        for name, function in case.providers.items():
            times[name].append(_timed(function))
    for name, values in times.items():
        deciles = statistics.quantiles(values, n=10, method="inclusive")
        yield Row(
            benchmark=benchmark,
            shape=case.shape,
            provider=name,
            p20_ms=round(deciles[1], 4),
            p50_ms=round(deciles[4], 4),
            p80_ms=round(deciles[7], 4),
            repeats=repeats,
            threads=torch.get_num_threads(),
            device=device_name(),
            torch=torch.__version__,
            c2am=__version__,
            date=datetime.now(UTC).date().isoformat(),
        )


def write_rows(path: Path, rows: list[Row]) -> None:
    """Add rows to the CSV, in place of earlier rows of the same measurement."""
    names = [field.name for field in fields(Row)]
    key = ("benchmark", "shape", "provider", "threads", "device")
    table: dict[tuple[str, ...], dict[str, str]] = {}
    if path.exists():
        with path.open(newline="") as file:
            table = {tuple(line[k] for k in key): line for line in csv.DictReader(file)}
    for row in rows:
        line = {name: str(value) for name, value in asdict(row).items()}
        table[tuple(line[k] for k in key)] = line
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(table[k] for k in sorted(table))
