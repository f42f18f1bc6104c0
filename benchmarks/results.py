"""The results table of the ops: its lines and its CSV."""

import csv
import os
import shutil
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import torch

from benchmarks.runner import Case, Entry, Samples, baseline, best_device, clock_of
from c2am import __version__, _core
from c2am.provenance import hardware_name

FOLDER = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Row:
    """One line of the table. `docs/performance.md` says what the columns mean."""

    benchmark: str
    shape: str
    provider: str
    threads: int
    p20_ms: float
    p50_ms: float
    p80_ms: float
    repeats: int
    clock: str
    baseline: str
    ratio_p20: float
    ratio_p50: float
    ratio_p80: float
    scaling_p20: float | str
    scaling_p50: float | str
    scaling_p80: float | str
    peak_mb: float | str
    gbyte: float | str
    gflop: float | str
    triad_gb_s: float
    isa: str
    device: str
    torch: str
    c2am: str
    revision: str
    date: str


def percentiles(values: Sequence[float]) -> tuple[float, float, float]:
    """The 20th, 50th and 80th; of one value, that."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    deciles = statistics.quantiles(values, n=10, method="inclusive")
    return deciles[1], deciles[4], deciles[7]


def make_rows(
    op: str,
    case: Case,
    samples: Samples,
    *,
    clock: str,
    triads: dict[int, float],
    peaks: dict[Entry, int],
) -> list[Row]:
    """The lines of a case.

    Args:
        op: Name of the op.
        case: What was timed.
        samples: Its times.
        clock: The clock that took them, but for those of the host beside a GPU's.
        triads: Bytes per second of the triad, by number of threads.
        peaks: Bytes of memory; an entry that is not in it has none.
    """
    rows = []
    for entry, times in samples.items():
        base = baseline(case, list(samples), entry)
        ratios = [b / t for b, t in zip(samples[base], times, strict=True)]
        own = [e for e in samples if e.provider == entry.provider]
        fewest = min(own, key=lambda e: e.threads)
        scaling = [f / t for f, t in zip(samples[fewest], times, strict=True)]
        work = case.work[entry.provider]() if entry.provider in case.work else None
        p20, p50, p80 = (round(value, 4) for value in percentiles(times))
        low, middle, high = (round(value, 3) for value in percentiles(ratios))
        scales = ["" if entry == fewest else round(value, 3) for value in percentiles(scaling)]
        row = Row(
            benchmark=op,
            shape=case.shape,
            provider=entry.provider,
            threads=entry.threads,
            p20_ms=p20,
            p50_ms=p50,
            p80_ms=p80,
            repeats=len(times),
            clock=clock_of(entry, clock),
            baseline=f"{base.provider} x{base.threads}",
            ratio_p20=low,
            ratio_p50=middle,
            ratio_p80=high,
            scaling_p20=scales[0],
            scaling_p50=scales[1],
            scaling_p80=scales[2],
            peak_mb=round(peaks[entry] / 1e6, 1) if entry in peaks else "",
            gbyte=round(work.bytes / 1e9, 5) if work else "",
            gflop=round(work.flops / 1e9, 5) if work else "",
            triad_gb_s=round(triads[entry.threads] / 1e9, 2),
            **machine(),
        )
        rows.append(row)
    return rows


def machine() -> dict[str, str]:
    """Where and with what is measured: the last columns of a table."""
    return {
        "isa": _core.isa,
        "device": hardware_name(best_device()),
        "torch": torch.__version__,
        "c2am": __version__,
        "revision": _revision(),
        "date": datetime.now(UTC).date().isoformat(),
    }


@cache
def _revision() -> str:
    # A copy of the tree may have no history, nor the machine git.
    if "C2AM_REVISION" in os.environ or shutil.which("git") is None:
        return os.environ.get("C2AM_REVISION", "")
    command = ["git", "describe", "--always", "--dirty", "--exclude", "*"]
    done = subprocess.run(command, cwd=FOLDER.parent, capture_output=True, text=True)
    return done.stdout.strip()


def read_rows(path: Path) -> list[dict[str, str]]:
    """The lines of a CSV; none if there is no such file."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def write_rows(path: Path, rows: Sequence[Any]) -> None:
    """Write rows to the CSV, in the place of all with their `benchmark` and `device`.

    Args:
        path: The CSV.
        rows: At least one, of one dataclass; its fields are the columns.
    """
    replaced = {(row.benchmark, row.device) for row in rows}
    kept = [row for row in read_rows(path) if (row["benchmark"], row["device"]) not in replaced]
    lines = kept + [{name: str(value) for name, value in asdict(row).items()} for row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}")
    with temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, [f.name for f in fields(rows[0])], lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted(lines, key=lambda line: (line["device"], line["benchmark"])))
    temporary.replace(path)  # whole at any time, even if this process is killed
