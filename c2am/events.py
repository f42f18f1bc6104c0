"""The numbers of a run over time: TensorBoard files and metrics.jsonl, written by the main rank."""

import json
import math
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from torch.utils.tensorboard import SummaryWriter

from c2am import distributed
from c2am.workspace import writing

METRICS = "metrics.jsonl"


class Events:
    """Log of one stage (and method); a context manager.

    Args:
        folder: `events/` of the run.
        name: `<stage>` or `<stage>/<method>`; TensorBoard shows each as a run of its own.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = Path(folder)
        self.name = name
        self._writer: SummaryWriter | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def log(self, step: int, values: dict[str, float]) -> None:
        """Add one line: `{"stage": name, "step": step, "time": seconds, **values}`.

        A value that is not finite is written as null in metrics.jsonl. Other ranks than the main
        one write nothing.
        """
        if not distributed.is_main():
            return
        line = {"stage": self.name, "step": step, "time": round(time.time(), 3)}
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        with writing(self.folder):
            self._append(json.dumps(line | finite))
            if self._writer is None:
                # A resumed run writes some steps again: TensorBoard is told to forget the first.
                self._writer = SummaryWriter(str(self.folder / self.name), purge_step=step)
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)

    def _append(self, line: str) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / METRICS).open("ab+") as file:
            # A killed run may have left half a line.
            if file.tell() > 0:
                file.seek(-1, 2)
                line = line if file.read(1) == b"\n" else "\n" + line
            file.write(line.encode() + b"\n")

    def close(self) -> None:
        """Write out what is buffered."""
        if self._writer is not None:
            with writing(self.folder):
                self._writer.close()
            self._writer = None


def read_metrics(folder: Path, name: str | None = None) -> list[dict[str, Any]]:
    """The lines of `folder/metrics.jsonl`, of one stage if named, ordered by stage and step.

    A line takes the place of those of its stage from its step on: a run that is resumed, or made
    again with fewer steps, writes them anew. Half a line, which only a killed run leaves, is
    passed over.
    """
    path = Path(folder) / METRICS
    stages: dict[str, list[dict[str, Any]]] = {}
    for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            continue
        if name in (None, line["stage"]):
            lines = stages.setdefault(line["stage"], [])
            while lines and lines[-1]["step"] >= line["step"]:
                lines.pop()
            lines.append(line)
    return [line for stage in sorted(stages) for line in stages[stage]]
