"""Writes the tables of docs/performance.md from the CSVs, each between its two markers."""

from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

from benchmarks.results import FOLDER, read_rows

DOCUMENT = Path(__file__).parents[1] / "docs" / "performance.md"
BEGIN = "<!-- {}: written by `python -m benchmarks table` -->"
END = "<!-- end of {} -->"
COLUMNS = (
    "shape",
    "provider",
    "threads",
    "ms",
    "times as fast",
    "as",
    "scaling",
    "peak MB",
    "GB/s",
    "of triad",
    "GFLOP/s",
)


def updated(document: str, name: str, table: str) -> str:
    """The document with `table` between the markers of that name.

    Raises:
        ValueError: the document does not have both markers, once and in order.
    """
    begin, end = BEGIN.format(name), END.format(name)
    if not (document.count(begin) == document.count(end) == 1) or document.index(
        begin
    ) > document.index(end):
        raise ValueError(f"{DOCUMENT}: expected the lines {begin!r} and {end!r} once, in order")
    before, rest = document.split(begin)
    return f"{before}{begin}\n\n{table}\n{end}{rest.split(end)[1]}"


def write() -> None:
    """Bring docs/performance.md up to date with the CSVs of benchmarks/results."""
    from benchmarks.stages import table as stages

    text = DOCUMENT.read_text(encoding="utf-8")
    text = updated(text, "ops", markdown(read_rows(FOLDER / "ops.csv")))
    text = updated(text, "stages", stages.markdown(read_rows(FOLDER / "stages.csv")))
    DOCUMENT.write_text(text, encoding="utf-8")


def markdown(rows: list[dict[str, str]]) -> str:
    """A section for each device, with a table for each op."""
    if not rows:
        return "Nothing is recorded yet.\n"
    parts = []
    for device, of_device in groupby(rows, key=lambda row: row["device"]):
        parts.append(f"### {device}\n")
        for op, lines in groupby(of_device, key=lambda row: row["benchmark"]):
            parts.append(_op_table(op, list(lines)))
    return "\n".join(parts)


def _op_table(op: str, rows: list[dict[str, str]]) -> str:
    origins = {_origin(row): None for row in rows}
    lines = [f"`{op}` ({'; '.join(origins)})\n", _line(COLUMNS), _line("---" for _ in COLUMNS)]
    lines += [_line(_cells(row)) for row in rows]
    return "\n".join(lines) + "\n"


def _origin(row: dict[str, str]) -> str:
    clock = "" if row["clock"] == "wall" else f", {row['clock']} time"
    return f"{row['date']}, {row['revision']}, torch {row['torch']}, {row['isa']}{clock}"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(row: dict[str, str]) -> tuple[str, ...]:
    seconds = float(row["p50_ms"]) / 1e3
    speed = rate = share = ""
    if row["gbyte"]:
        bandwidth = float(row["gbyte"]) / seconds
        speed = _number(bandwidth)
        share = f"{bandwidth / float(row['triad_gb_s']):.0%}"
        rate = _number(float(row["gflop"]) / seconds)
    itself = row["baseline"] == f"{row['provider']} x{row['threads']}"
    return (
        row["shape"],
        row["provider"],
        row["threads"],
        _spread(row["p50_ms"], row["p20_ms"], row["p80_ms"]),
        "" if itself else _spread(row["ratio_p50"], row["ratio_p20"], row["ratio_p80"]),
        "" if itself else row["baseline"],
        _spread(row["scaling_p50"], row["scaling_p20"], row["scaling_p80"]),
        row["peak_mb"],
        speed,
        share,
        rate,
    )


def _spread(middle: str, low: str, high: str) -> str:
    """Nothing where nothing was measured."""
    if not middle:
        return ""
    return f"{_number(float(middle))} ({_number(float(low))} to {_number(float(high))})"


def _number(value: float) -> str:
    """Three digits."""
    digits = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3
    return f"{value:.{digits}f}"
