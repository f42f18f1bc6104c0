"""Timing, the machine's description, and the results table that all benchmarks share."""

import csv
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path

import torch

from c2am import __version__
from c2am.provenance import device_name


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


def best_device() -> torch.device:
    """CUDA if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


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
            device=device_name(best_device()),
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
