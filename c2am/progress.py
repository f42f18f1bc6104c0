"""Progress bars with rate and time left, on the main rank and only in a terminal."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from c2am import distributed

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
console = Console(stderr=True)


class _Rate(ProgressColumn):
    """Units per second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.1f} {task.fields['unit']}/s" if speed else "")


class Bar:
    """Handle of a running progress bar."""

    def __init__(self, display: Progress, name: str, total: int, done: int, unit: str) -> None:
        self._display = display
        self._task = display.add_task(name, total=total, completed=done, unit=unit, status="")

    def advance(self, count: int = 1, status: str | None = None) -> None:
        """Count `count` more units as done; show `status` behind the bar."""
        self._display.advance(self._task, count)
        if status is not None:
            self._display.update(self._task, status=status)


def shown() -> bool:
    """Whether this process shows bars."""
    return console.is_terminal and distributed.is_main()


@contextmanager
def progress_bar(name: str, *, total: int, done: int = 0, unit: str = "images") -> Iterator[Bar]:
    """Show a bar while the block runs, advanced by hand; bars are not nested.

    Args:
        name: what is going on.
        total: units of the whole task.
        done: units that an earlier run has done; they do not count for the rate.
        unit: what is counted.
    """
    display = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[status]}"),
        console=console,
        disable=not shown(),
    )
    with display:
        yield Bar(display, name, total, done, unit)


class SizedIterable(Protocol[T_co]):
    """A list, or a loader: what has a length and can be iterated over."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[T_co]: ...


def progress(
    items: SizedIterable[T],
    name: str,
    *,
    total: int | None = None,
    unit: str = "images",
    count: Callable[[T], int] = lambda item: 1,
) -> Iterator[T]:
    """Iterate over `items` and show a bar meanwhile.

    Example::

        for batch in progress(loader, "cam", total=len(ids), count=lambda batch: len(batch.ids)):
            ...

    Args:
        items: what is iterated over.
        name: what is going on.
        total: units of all items together; their number if unset.
        unit: what is counted.
        count: units of one item, 1 by default.
    """
    with progress_bar(name, total=len(items) if total is None else total, unit=unit) as bar:
        for item in items:
            yield item
            bar.advance(count(item))
