"""The losses of a training between two lines of the log, and the stop where one is not finite."""

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from c2am import distributed
from c2am.transfer import ToHost

Terms = dict[str, Tensor]


class TrainingError(RuntimeError):
    """The training cannot go on; the message says at which step and images."""


Row = tuple[int, list[str], Terms]
"""Step, images and terms of a micro-batch."""


@dataclass(frozen=True)
class _Sent:
    """Losses on their way to the host: summed over the ranks, with a flag, and the own ones."""

    rows: list[Row]
    tensors: ToHost


class LossLog:
    """The losses since the last log: kept on the device, reduced in one go, then read."""

    def __init__(self) -> None:
        self.logged: dict[str, float] = {}
        self._unread: list[Row] = []
        self._sent: _Sent | None = None
        self._rows: list[list[float]] = []
        self._names: list[str] = []
        self._restored = 0
        self._since = time.perf_counter()

    def add(self, step: int, ids: list[str], terms: Terms) -> None:
        """Keep the terms of a micro-batch."""
        detached = {name: term.detach().float() for name, term in terms.items()}
        self._unread.append((step, ids, detached))

    def send(self, stop: bool) -> None:
        """Reduce what was added, with whether this rank is to stop; nobody waits for a GPU."""
        own = torch.stack([torch.stack(list(terms.values())) for _, _, terms in self._unread])
        flag = torch.full((1,), float(stop), device=own.device)
        packed = distributed.all_reduce_sum(torch.cat([own.flatten(), flag]))
        self._sent = _Sent(self._unread, ToHost(packed, own))
        self._unread = []

    def read(self) -> bool:
        """Read what was sent, which may be waited for; return whether any rank is to stop.

        Raises:
            TrainingError: on all ranks, if a loss of any rank is not finite.
        """
        assert self._sent is not None
        sent, self._sent = self._sent, None
        packed, own = sent.tensors.wait()
        mean = packed[:-1].view_as(own) / distributed.world_size()
        if not mean.isfinite().all():
            _fail(sent.rows, own, mean)
        self._names = list(sent.rows[0][2])
        self._rows += mean.tolist()
        return bool(packed[-1] > 0)

    def state(self) -> dict[str, Tensor]:
        """What has been read since the last `take`, for a checkpoint: (n, terms) float64."""
        return {"losses": torch.tensor(self._rows, dtype=torch.float64)} if self._rows else {}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from a `state`."""
        if "losses" in state:
            self._rows = state["losses"].tolist()
        self._restored = len(self._rows)

    def take(self) -> tuple[dict[str, float], int, float]:
        """Mean of each term and of their sum, micro-batches and seconds since the last call.

        After a restart the mean is over those before it too, the count of micro-batches is not.
        """
        rows = torch.tensor(self._rows, dtype=torch.float64)
        terms = dict(zip(self._names, rows.mean(0).tolist(), strict=True))
        self.logged = {"loss": sum(terms.values())} | terms
        now = time.perf_counter()
        seconds, self._since = now - self._since, now
        count, self._rows, self._restored = len(rows) - self._restored, [], 0
        return dict(self.logged), count, seconds


def _fail(rows: list[Row], own: Tensor, mean: Tensor) -> None:
    row = int((~mean.isfinite()).any(1).nonzero()[0])
    step, ids, terms = rows[row]
    if own[row].isfinite().all():
        raise TrainingError(f"step {step}: the loss of another rank is not finite")
    values = ", ".join(f"{n} = {v}" for n, v in zip(terms, own[row].tolist(), strict=True))
    raise TrainingError(
        f"step {step}: the loss is not finite ({values}) for the images {', '.join(ids)}"
    )
