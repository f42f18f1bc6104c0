"""`python -m benchmarks`: times the ops and the stages, and keeps the scores of a run."""

import argparse
import os
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import compare, results, table
from benchmarks import run as recorded
from benchmarks.memory import peak_of
from benchmarks.ops import COMPILED, cases, op_names
from benchmarks.results import Row
from benchmarks.runner import best_device, default_clock, entries, missing_peers, time_entries
from benchmarks.stages import PROVIDERS, STAGES
from benchmarks.triad import triad


def _bench_ops(options: argparse.Namespace) -> None:
    console = Console(width=max(140, Console().width))  # else a pipe gets tables cut at 80
    names = options.op or op_names()
    triads = {threads: triad(threads, best_device()) for threads in {1, *options.threads}}
    for op in names:
        rows: list[Row] = []
        for index, case in enumerate(cases(op, options.image)):
            if options.peer and missing_peers(case):
                console.print(f"{op}: not installed: {', '.join(missing_peers(case))}")
            timed = entries(case, options.threads, peers=options.peer)
            if not options.compiled:
                timed = [entry for entry in timed if entry.provider != COMPILED]
            samples = time_entries(timed, budget_s=options.budget, clock=options.clock)
            measured = [] if options.no_memory else [e for e in timed if e.threads == 1]
            peaks = {entry: peak_of(op, index, entry, options.image) for entry in measured}
            rows += results.make_rows(
                op, case, samples, clock=options.clock, triads=triads, peaks=peaks
            )
        console.print(_summary(op, rows))
        if options.output:
            results.write_rows(options.output, rows)


def _bench_stages(options: argparse.Namespace, recipe_options: list[str]) -> None:
    # Late: they bring DALI, which the ops do not need.
    from benchmarks.stages import measure
    from benchmarks.stages import table as stages_table

    console = Console(width=max(140, Console().width))
    plan = measure.Plan(
        recipe=options.recipe,
        stages=tuple(options.stage or STAGES),
        options=tuple(recipe_options),
        marks=options.windows,
        rounds=options.rounds,
        images=options.images,
        threads=options.threads or len(os.sched_getaffinity(0)),
        ranks=options.ranks,
        providers=tuple(options.provider or ()),
    )

    def keep(rows: list[measure.Row]) -> None:
        if options.output and rows:
            results.write_rows(options.output, rows)

    rows = measure.measure(plan, console.log, keep)
    written = [{key: str(each) for key, each in asdict(row).items()} for row in rows]
    lines = Table(*stages_table.COLUMNS, title="stages", title_justify="left")
    for row in written:
        lines.add_row(*stages_table.cells(row))
    console.print(lines)
    for said in (*stages_table.shares(written), *stages_table.estimate(written)):
        console.print(said, markup=False)


def _summary(op: str, rows: list[Row]) -> Table:
    columns = ("shape", "provider", "threads", "p20 ms", "p50 ms", "p80 ms", "ratio", "to", "MB")
    summary = Table(*columns, title=op, title_justify="left")
    for row in rows:
        times = (f"{value:.3f}" for value in (row.p20_ms, row.p50_ms, row.p80_ms))
        ratio = f"{row.ratio_p50:.2f} ({row.ratio_p20:.2f} to {row.ratio_p80:.2f})"
        cells = (*times, ratio, row.baseline, str(row.peak_mb))
        summary.add_row(row.shape, row.provider, str(row.threads), *cells)
    return summary


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    words = parser.add_subparsers(dest="word", required=True)
    ops = words.add_parser("ops", help="time every backend of the ops at the pipeline's shapes")
    ops.add_argument("--op", action="append", choices=op_names(), help="only this one; repeatable")
    ops.add_argument("--peer", action="store_true", help="time other packages that are installed")
    ops.add_argument(
        "--compiled",
        action=argparse.BooleanOptionalAction,
        default=best_device().type == "cuda",
        help="time torch.compile of the plain versions (default: on a GPU)",
    )
    ops.add_argument("--threads", type=int, nargs="+", default=[1], help="of ours (default: 1)")
    ops.add_argument("--image", type=Path, help="a photograph for dense_crf (default: drawn)")
    ops.add_argument(
        "--clock",
        choices=("wall", "cpu", "gpu"),
        default=default_clock(),
        help="cpu: of all threads; gpu: between events (default there)",
    )
    ops.add_argument("--budget", type=float, default=6.0, help="seconds per case, about")
    ops.add_argument("--no-memory", action="store_true", help="do not measure peak memory")
    ops.add_argument("--output", type=Path, help="CSV to write the rows to")
    ops.add_argument("--compare", metavar="REF", help="print ratios to another git revision")
    stages = words.add_parser(
        "stages",
        help="time the stages as the pipeline runs them, and their parts",
        epilog="Further options are those of the recipe, as --classifier.batch_size 32.",
    )
    stages.add_argument("--recipe", default="voc12-fixed", help="(%(default)s)")
    stages.add_argument("--stage", action="append", choices=STAGES, help="only this; repeatable")
    stages.add_argument(
        "--provider", action="append", choices=PROVIDERS, help="only this, where it is; repeatable"
    )
    stages.add_argument("--windows", type=int, default=4, help="windows of a process (%(default)s)")
    stages.add_argument("--rounds", type=int, default=2, help="processes of each (%(default)s)")
    stages.add_argument(
        "--images", type=int, default=96, help="JPEGs to draw, at least (%(default)s)"
    )
    stages.add_argument("--threads", type=int, help="of a process; default: one for each core")
    stages.add_argument(
        "--ranks",
        type=int,
        default=1 if best_device().type == "cuda" else min(2, len(os.sched_getaffinity(0))),
        help="time so many processes of one thread each, too; 1: do not (%(default)s)",
    )
    stages.add_argument(
        "--output", type=Path, help="CSV to write the rows to, as they are measured"
    )
    words.add_parser("table", help="write the tables of docs/performance.md from results/*.csv")
    run = words.add_parser("run", help="write the scores and costs of a finished run as a CSV")
    run.add_argument("folder", type=Path, help="folder of the run, as runs/demo")
    run.add_argument("--output", type=Path, help="default: benchmarks/results/<run>.csv")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Run one benchmark command."""
    options, rest = _parser().parse_known_args(argv)
    if rest and options.word != "stages":
        _parser().error(f"unknown arguments: {' '.join(rest)}")
    if options.word == "stages":
        _bench_stages(options, rest)
    elif options.word == "ops" and options.compare:
        compare.compare(options.compare, options.op or op_names(), options.threads, options.image)
    elif options.word == "ops":
        _bench_ops(options)
    elif options.word == "table":
        table.write()
    else:
        output = options.output or results.FOLDER / f"{options.folder.resolve().name}.csv"
        rows = recorded.record(options.folder, output)
        Console().print(f"{len(rows)} rows written to {output}")


if __name__ == "__main__":
    main()
