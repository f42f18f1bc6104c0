"""The tables that end a run: scores per method as in Table 1 of the paper, cost per stage."""

from collections.abc import Iterable

from rich.table import Table

from c2am.viz.summary import SCORES, StageKey, duration, stage_rows, summarize_method
from c2am.workspace import Workspace

_GIB = 2**30


def score_table(workspace: Workspace, methods: Iterable[str]) -> Table:
    """One row per method, mIoU in percent; a dash where there is no score yet."""
    table = Table("method", *(kind.title for kind in SCORES), title="mIoU (%)")
    for column in table.columns[1:]:
        column.justify = "right"
    scored = False
    for method in methods:
        summary = summarize_method(workspace, method)
        values = [summary.miou(kind.key) for kind in SCORES]
        table.add_row(method, *("-" if v is None else f"{100 * v:.1f}" for v in values))
        scored = scored or any(value is not None for value in values)
    if not scored:
        table.caption = "no scores: no stage with one is done, or the lists have no masks"
    return table


def cost_table(workspace: Workspace, jobs: Iterable[StageKey]) -> Table:
    """Wall time and peak memory of each stage that is done, as its manifest holds them."""
    table = Table("stage", "method", "time", "peak memory", title="Cost")
    for column in table.columns[2:]:
        column.justify = "right"
    for row in stage_rows(workspace, jobs):
        if row.done and row.seconds is not None and row.peak_memory is not None:
            memory = f"{row.peak_memory / _GIB:.2f} GiB"
            table.add_row(row.stage, row.method or "", duration(row.seconds), memory)
    return table
