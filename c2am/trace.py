"""A profile of some steps of a training, as a Chrome trace."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, schedule

from c2am import distributed
from c2am.progress import console
from c2am.wording import counted
from c2am.workspace import atomic

_SETTLED = 10
"""Leading steps that are not recorded, if there are enough: they compile, and try algorithms."""


@contextmanager
def trace(
    folder: Path, steps: int, *, total: int, device: torch.device
) -> Iterator[Callable[[], object]]:
    """Record `steps` of the next `total` steps; yields what is to be called after each of them.

    Each rank leaves `folder/trace-<rank>.json.gz`, for https://ui.perfetto.dev or chrome://tracing,
    when the last of its steps is done. With 0 steps nothing is recorded.

    Raises:
        WorkspaceError: the file cannot be written.
    """
    if steps == 0:
        yield lambda: None
        return
    path = folder / f"trace-{distributed.rank()}.json.gz"

    def write(profiler: profile) -> None:
        with atomic(path) as temporary:
            profiler.export_chrome_trace(str(temporary))
        if distributed.is_main():
            console.print(
                f"trace of {counted(active, 'step')}: {path}", soft_wrap=True, highlight=False
            )

    active = max(1, min(steps, total - 1))
    warmup = min(1, total - active)
    settle = min(_SETTLED, total - active - warmup)
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    plan = schedule(wait=settle, warmup=warmup, active=active, repeat=1)
    with profile(
        activities=activities, schedule=plan, on_trace_ready=write, acc_events=True
    ) as profiler:
        yield profiler.step
