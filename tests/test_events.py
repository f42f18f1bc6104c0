import io
import math

import pytest
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from c2am import distributed, progress
from c2am.events import METRICS, Events, read_metrics
from c2am.workspace import WorkspaceError


def test_lines_and_tensorboard_hold_the_values(tmp_path):
    with Events(tmp_path, "irn/c2am") as events:
        events.log(10, {"loss": 0.5, "lr": 0.1})
        events.log(20, {"loss": 0.25, "lr": 0.05})
    lines = read_metrics(tmp_path)
    assert [(line["stage"], line["step"], line["loss"]) for line in lines] == [
        ("irn/c2am", 10, 0.5),
        ("irn/c2am", 20, 0.25),
    ]
    board = EventAccumulator(str(tmp_path / "irn" / "c2am")).Reload()
    assert [(event.step, event.value) for event in board.Scalars("loss")] == [(10, 0.5), (20, 0.25)]


def test_of_a_step_written_twice_the_last_counts(tmp_path):
    for loss in (0.5, 0.25):
        with Events(tmp_path, "classifier") as events:
            events.log(10, {"loss": loss})
    assert [line["loss"] for line in read_metrics(tmp_path)] == [0.25]


def test_a_shorter_run_leaves_nothing_of_the_longer_one_before(tmp_path):
    for steps in ((10, 20, 30), (10, 20)):
        with Events(tmp_path, "classifier") as events:
            for step in steps:
                events.log(step, {"loss": 1 / len(steps)})
    assert [(line["step"], line["loss"]) for line in read_metrics(tmp_path)] == [
        (10, 0.5),
        (20, 0.5),
    ]


def test_half_a_line_of_a_killed_run_is_passed_over(tmp_path):
    with Events(tmp_path, "classifier") as events:
        events.log(10, {"loss": 1.0})
        with (tmp_path / METRICS).open("a") as file:
            file.write('{"stage": "classi')
        events.log(20, {"loss": 2.0})
    assert [line["loss"] for line in read_metrics(tmp_path, "classifier")] == [1.0, 2.0]
    assert read_metrics(tmp_path, "irn") == []


def test_values_that_are_not_finite_are_null(tmp_path):
    with Events(tmp_path, "classifier") as events:
        events.log(1, {"loss": math.nan, "lr": 1.0})
    assert read_metrics(tmp_path)[0]["loss"] is None
    assert "NaN" not in (tmp_path / METRICS).read_text()


def test_only_the_main_rank_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(distributed, "rank", lambda: 1)
    with Events(tmp_path / "events", "classifier") as events:
        events.log(1, {"loss": 1.0})
    assert not (tmp_path / "events").exists()
    assert read_metrics(tmp_path / "events") == []


@pytest.mark.parametrize("terminal", [True, False])
def test_bars_show_in_a_terminal_only(monkeypatch, terminal):
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=120)
    monkeypatch.setattr(progress, "console", console)
    items = [["a", "b"], ["c"]]
    assert list(progress.progress(items, "cam c2am", total=3, count=len)) == items
    assert ("cam c2am" in text.getvalue() and "3/3" in text.getvalue()) == terminal
    assert (text.getvalue() == "") == (not terminal)


def test_a_bar_goes_on_where_an_earlier_run_stopped(monkeypatch):
    text = io.StringIO()
    monkeypatch.setattr(progress, "console", Console(file=text, force_terminal=True, width=120))
    with progress.progress_bar("irn", total=10, done=8) as bar:
        bar.advance(1, status="loss 0.5")
    assert "9/10" in text.getvalue()
    assert "loss 0.5" in text.getvalue()


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkspaceError, match=r"cannot write .*file/events"):
        Events(tmp_path / "file" / "events", "irn").log(1, {"loss": 1.0})
