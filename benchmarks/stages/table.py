"""The tables of docs/performance.md about the stages, from results/stages.csv."""

from collections.abc import Iterator
from itertools import groupby

from benchmarks.stages.estimate import minutes
from c2am.parsing import load_config

COLUMNS = (
    "stage",
    "provider",
    "ranks x threads",
    "images/s",
    "times as fast",
    "as",
    "start-up s",
    "compile s",
    "peak MB",
    "GFLOP/s",
    "of matmul",
)
RECIPE = "voc12-fixed"


def cells(row: dict[str, str]) -> tuple[str, ...]:
    """A row of the CSV as a line of the table."""
    rate, work = float(row["p50_images_s"]), row["gflop_per_image"]
    achieved = rate * float(work) if work and row["provider"] != "loading" else None
    share = achieved / float(row["matmul_gflop_s"]) if achieved else None
    itself = row["baseline"] == f"{row['provider']} {row['ranks']}x{row['threads']}"
    return (
        f"{row['benchmark']} ({row['setting']})",
        row["provider"],
        f"{row['ranks']} x {row['threads']}",
        f"{rate:.3g} ({float(row['p20_images_s']):.3g} to {float(row['p80_images_s']):.3g})",
        "" if itself else f"{row['ratio']} ({row['ratio_least']} to {row['ratio_most']})",
        "" if itself else row["baseline"],
        row["startup_s"],
        row["compile_s"],
        row["peak_mb"],
        f"{achieved:.0f}" if achieved else "",
        f"{share:.0%}" if share else "",
    )


def markdown(rows: list[dict[str, str]]) -> str:
    """For each device the table, what it says of each stage, and of VOC if all were measured."""
    if not rows:
        return "Nothing is recorded yet.\n"
    parts: list[str] = []
    for device, group in groupby(rows, key=lambda row: row["device"]):
        lines = list(group)
        origins = {f"{r['date']}, {r['revision']}, torch {r['torch']}": None for r in lines}
        parts += [f"### {device}\n", f"{'; '.join(origins)}\n"]
        table = [COLUMNS, ("---",) * len(COLUMNS), *map(cells, lines)]
        parts += ["\n".join(f"| {' | '.join(line)} |" for line in table) + "\n"]
        parts += [*shares(lines), *estimate(lines)]
    return "\n".join(parts)


def shares(rows: list[dict[str, str]]) -> Iterator[str]:
    """Of each stage: how its loading and the whole of it compare with its network alone."""
    for stage, group in groupby(rows, key=lambda row: row["benchmark"]):
        lines = list(group)
        threads = lines[0]["threads"]
        rate = {
            row["provider"]: float(row["p50_images_s"])
            for row in lines
            if (row["ranks"], row["threads"]) == ("1", threads)
        }
        if {"whole", "loading", "network"} <= rate.keys():
            yield (
                f"{stage}: loading is {rate['loading'] / rate['network']:.3g} times as fast as the "
                f"network alone, the whole reaches {rate['whole'] / rate['network']:.0%} of it.\n"
            )


def estimate(rows: list[dict[str, str]]) -> Iterator[str]:
    """What the whole of VOC would take, if all stages were measured."""
    rates = {
        row["benchmark"]: float(row["p50_images_s"])
        for row in reversed(rows)
        if row["provider"] == "whole"
    }
    stages = minutes(load_config(RECIPE), rates)
    if stages is None:
        return
    parts = ", ".join(f"{stage} {value:.0f}" for stage, value in stages.items())
    yield (
        f"**Estimate**, not a measurement: at these speeds the stages of `{RECIPE}` from the "
        f"classifier to the pseudo masks of one method would take {sum(stages.values()):.0f} "
        f"minutes for VOC 2012 ({parts}).\n"
    )
