"""The final tables on a terminal."""

import pytest
from rich.console import Console

from c2am.results import score_table
from c2am.viz.summary import SCORES
from c2am.workspace import Workspace

METHODS = ("cam", "continued", "constant", "c2am")


def printed(workspace: Workspace, width: int) -> str:
    console = Console(width=width)
    with console.capture() as capture:
        console.print(score_table(workspace, METHODS))
    return capture.get()


@pytest.mark.parametrize("width", [80, 120])
def test_the_scores_fit_a_terminal(tmp_path, width):
    workspace = Workspace(tmp_path)
    for method in METHODS:
        for stage in {kind.stage for kind in SCORES}:
            metrics = {kind.metric: {"miou": 0.345} for kind in SCORES if kind.stage == stage}
            workspace.write_manifest(stage, method, {"metrics": metrics})
    text = printed(workspace, width)
    assert max(map(len, text.splitlines())) <= width
    assert "\N{HORIZONTAL ELLIPSIS}" not in text
    assert text.count("34.5") == len(METHODS) * len(SCORES)
    for word in " ".join(kind.title for kind in SCORES).split():
        assert word in text
    assert "no scores" not in text


def test_a_table_without_scores_says_why(tmp_path):
    text = printed(Workspace(tmp_path), 80)
    assert "no scores: no stage with one is done, or the lists have no masks" in text
