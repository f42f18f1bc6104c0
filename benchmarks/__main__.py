"""`python -m benchmarks`: times the ops, and keeps the scores of a run."""

import argparse
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import run as recorded
from benchmarks.ops import cases, op_names
from benchmarks.runner import Row, time_case, write_rows

RESULTS = Path(__file__).parent / "results"


def _bench_ops(names: list[str], output: Path) -> None:
    table = Table("op", "shape", "provider", "p20 ms", "p50 ms", "p80 ms", title=str(output))
    rows: list[Row] = []
    for op in names:
        for case in cases(op):
            for row in time_case(op, case):
                rows.append(row)
                times = (f"{value:.3f}" for value in (row.p20_ms, row.p50_ms, row.p80_ms))
                table.add_row(op, case.shape, row.provider, *times)
    write_rows(output, rows)
    Console().print(table)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    words = parser.add_subparsers(dest="word", required=True)
    ops = words.add_parser("ops", help="time every backend of the ops at the pipeline's shapes")
    ops.add_argument("--op", action="append", choices=op_names(), help="only this one; repeatable")
    ops.add_argument("--output", type=Path, default=RESULTS / "ops.csv", help="CSV to add rows to")
    run = words.add_parser("run", help="write the scores and costs of a finished run as a CSV")
    run.add_argument("folder", type=Path, help="folder of the run, as runs/demo")
    run.add_argument("--output", type=Path, help="default: benchmarks/results/<run>.csv")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Run one benchmark command."""
    options = _parser().parse_args(argv)
    if options.word == "ops":
        _bench_ops(options.op or op_names(), options.output)
    else:
        output = options.output or RESULTS / f"{options.folder.resolve().name}.csv"
        rows = recorded.record(options.folder, output)
        Console().print(f"{len(rows)} rows written to {output}")


if __name__ == "__main__":
    main()
