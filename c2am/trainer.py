"""The one training loop: SGD, poly schedule, autocast, several ranks, checkpoints, logging."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from c2am import distributed, precision
from c2am.checkpoints import Checkpoints, read_weights, write_weights
from c2am.config import TrainConfig
from c2am.events import Events
from c2am.progress import Bar, progress_bar

if TYPE_CHECKING:
    from c2am.data.loader import TrainBatch

Terms = dict[str, Tensor]


class TrainingError(RuntimeError):
    """The training cannot go on; the message says at which step and images."""


class Task(Protocol):
    """What a trained stage hands to the trainer.

    With several ranks each sees its part of the batch. `loss` then returns terms whose mean over
    the ranks is the term of the whole batch: `distributed.global_mean` makes them from a sum and a
    count. `after_step` sees the part alone; state that is kept there is reduced there.
    A task may also have `statistics() -> dict[str, float]`, which is logged beside the loss.
    """

    net: nn.Module

    def parameter_groups(self) -> list[dict]:
        """Groups for SGD, each with "params" and "lr"; "weight_decay", "momentum" may differ."""

    def loss(self, batch: TrainBatch, progress: float) -> Terms:
        """Scalar terms, float32, that are summed; `progress` is the part of the steps done."""

    def after_step(self, batch: TrainBatch, progress: float) -> None:
        """Called without gradient for each micro-batch of a step, after the step."""


class Loader(Protocol):
    """The part of `data.TrainLoader` that the trainer uses."""

    steps_per_epoch: float

    def batches(self, start: int) -> Iterator[TrainBatch]:
        """Endless micro-batches, from the one with index `start`."""


def train(
    task: Task,
    loader: Loader,
    config: TrainConfig,
    *,
    folder: Path,
    events: Events,
    device: torch.device,
) -> dict[str, float]:
    """Train `task.net` and leave `folder/weights.safetensors`.

    It continues from the newest checkpoint in `folder`; on a CPU the result is bit for bit that of
    an uninterrupted training. If the weights are there already, they are loaded. With several
    ranks the gradient is that of the global batch. A step sums `config.accumulate` micro-batches
    and averages them: a term that is a mean over pixels is averaged per micro-batch.

    Returns:
        `loss` (mean since the last log), `images_per_second` of this process's session over all
        ranks, `steps`.

    Raises:
        TrainingError: the loss is not finite; the message names step and images.
        SystemExit: 128 + signal after SIGTERM or SIGUSR1, with a checkpoint written.
    """
    finished = read_weights(folder, task.net)
    if finished is not None:
        return finished
    total = config.steps or max(1, round(config.epochs * loader.steps_per_epoch))
    _check_ranks(task.net, config)
    task.net.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(
        task.parameter_groups(),
        lr=config.lr,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
    )
    checkpoints = Checkpoints(folder, task.net, optimizer)
    metrics = _Loop(task, loader, config, total, optimizer, checkpoints, events, device).run()
    if distributed.is_main():
        write_weights(folder, task.net, metrics)
        checkpoints.clear()
    distributed.barrier()
    return metrics


class _Loop:
    """The state of a running training."""

    def __init__(
        self,
        task: Task,
        loader: Loader,
        config: TrainConfig,
        total: int,
        optimizer: torch.optim.Optimizer,
        checkpoints: Checkpoints,
        events: Events,
        device: torch.device,
    ) -> None:
        self.task, self.config, self.total = task, config, total
        self.optimizer, self.checkpoints, self.events = optimizer, checkpoints, events
        self.device = device
        self.base_lr = [group["lr"] for group in optimizer.param_groups]
        self.first = checkpoints.restore()
        if self.first >= total:
            raise TrainingError(f"{checkpoints.folder} has a checkpoint of a longer training")
        self.step_module = _wrap(task, config, device)
        self.batches = loader.batches(self.first * config.accumulate)
        self.losses = _Losses(device)
        # Reading the loss waits for the GPU, so there it is not done at every step.
        self.check_every = config.log_every if device.type == "cuda" else 1

    def run(self) -> dict[str, float]:
        """All remaining steps; returns the metrics of the training."""
        batch_size = self.config.batch_size
        began = time.perf_counter()
        bar = progress_bar(
            self.events.name, total=self.total * batch_size, done=self.first * batch_size
        )
        with _stop_signals() as stop, bar as shown:
            for step in range(self.first, self.total):
                self._step(step)
                shown.advance(batch_size)
                self._after(step + 1, stop, shown)
        seconds = time.perf_counter() - began
        return {
            "loss": self.losses.logged["loss"],
            "images_per_second": (self.total - self.first) * batch_size / seconds,
            "steps": self.total,
        }

    def _step(self, step: int) -> None:
        done = step / self.total
        self._set_lr(step)
        self.optimizer.zero_grad(set_to_none=True)
        parts = [next(self.batches) for _ in range(self.config.accumulate)]
        for part, batch in enumerate(parts):
            with _no_sync(self.step_module, part < len(parts) - 1):
                terms: Terms = self.step_module(batch, done)
                loss = torch.stack(list(terms.values())).sum() / len(parts)
                loss.backward()
            self.losses.add(step + 1, batch.ids, terms)
        self.optimizer.step()
        with torch.no_grad():
            for batch in parts:
                self.task.after_step(batch, done)

    def _set_lr(self, step: int) -> None:
        held = step - step % self.config.poly_interval
        factor = (1 - held / self.total) ** self.config.power
        for group, base in zip(self.optimizer.param_groups, self.base_lr, strict=True):
            group["lr"] = base * factor

    def _after(self, steps: int, stop: _Stop, shown: Bar) -> None:
        last = steps == self.total
        save = steps % self.config.checkpoint_every == 0 and not last
        log = steps % self.config.log_every == 0 or last
        if not (save or log or steps % self.check_every == 0):
            return
        stopped = self.losses.check(stop.signal is not None)
        if log:
            self._log(steps, shown)
        if save or (stopped and not last):
            self.checkpoints.save(steps)
        if stopped and not last:
            distributed.barrier()
            raise SystemExit(128 + (stop.signal or signal.SIGTERM))

    def _log(self, steps: int, shown: Bar) -> None:
        values, parts, seconds = self.losses.take()
        values["images_per_second"] = (
            parts * self.config.batch_size / self.config.accumulate / seconds
        )
        values["lr"] = self.optimizer.param_groups[0]["lr"]
        statistics = getattr(self.task, "statistics", None)
        if statistics is not None:
            values |= statistics()
        self.events.log(steps, values)
        shown.advance(0, f"loss {values['loss']:.4g}")


class _Losses:
    """The losses since the last log: kept on the device, read and reduced in one go."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.logged: dict[str, float] = {}
        self._unread: list[tuple[int, list[str], Terms]] = []
        self._rows: list[list[float]] = []
        self._names: list[str] = []
        self._since = time.perf_counter()

    def add(self, step: int, ids: list[str], terms: Terms) -> None:
        """Keep the terms of a micro-batch."""
        detached = {name: term.detach().float() for name, term in terms.items()}
        self._unread.append((step, ids, detached))

    def check(self, stop: bool) -> bool:
        """Read what was added; return whether any rank is to stop.

        Raises:
            TrainingError: on all ranks, if a loss of any rank is not finite.
        """
        own = torch.stack([torch.stack(list(terms.values())) for _, _, terms in self._unread])
        flag = torch.full((1,), float(stop), device=own.device)
        packed = distributed.all_reduce_sum(torch.cat([own.flatten(), flag])).cpu()
        mean = packed[:-1].view_as(own) / distributed.world_size()
        if not mean.isfinite().all():
            self._fail(own.cpu(), mean)
        self._names = list(self._unread[0][2])
        self._rows += mean.tolist()
        self._unread.clear()
        return bool(packed[-1] > 0)

    def _fail(self, own: Tensor, mean: Tensor) -> None:
        row = int((~mean.isfinite()).any(1).nonzero()[0])
        step, ids, terms = self._unread[row]
        if own[row].isfinite().all():
            raise TrainingError(f"step {step}: the loss of another rank is not finite")
        values = ", ".join(f"{n} = {v}" for n, v in zip(terms, own[row].tolist(), strict=True))
        raise TrainingError(
            f"step {step}: the loss is not finite ({values}) for the images {', '.join(ids)}"
        )

    def take(self) -> tuple[dict[str, float], int, float]:
        """Mean of each term and of their sum, micro-batches and seconds since the last call."""
        rows = torch.tensor(self._rows, dtype=torch.float64)
        terms = dict(zip(self._names, rows.mean(0).tolist(), strict=True))
        self.logged = {"loss": sum(terms.values())} | terms
        now = time.perf_counter()
        seconds, self._since = now - self._since, now
        self._rows = []
        return dict(self.logged), len(rows), seconds


class _Step(nn.Module):
    """One forward pass to the loss, as a module: so DDP overlaps any task's code with reducing."""

    def __init__(self, task: Task, config: TrainConfig, device: torch.device) -> None:
        super().__init__()
        self.net = task.net
        self._task, self._config, self._device = task, config, device

    def forward(self, batch: TrainBatch, progress: float) -> Terms:
        images = batch.images.contiguous(memory_format=torch.channels_last)
        batch = replace(batch, images=images)
        with precision.autocast(self._device, self._config.precision):
            return self._task.loss(batch, progress)


def _wrap(task: Task, config: TrainConfig, device: torch.device) -> nn.Module:
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
    if device.type == "cuda" if config.compile is None else config.compile:
        # The network alone: the batch holds image ids, each of which would be compiled for.
        task.net.compile()
    step = _Step(task, config, device)
    if distributed.world_size() == 1:
        return step
    # A method may leave parameters without gradient; buffers belong to `after_step`.
    return DistributedDataParallel(step, find_unused_parameters=True, broadcast_buffers=False)


def _no_sync(module: nn.Module, wanted: bool) -> AbstractContextManager[None]:
    if wanted and isinstance(module, DistributedDataParallel):
        return module.no_sync()
    return nullcontext()


def _check_ranks(net: nn.Module, config: TrainConfig) -> None:
    ranks = distributed.world_size()
    if config.batch_size // config.accumulate < ranks:
        raise ValueError(
            f"batch_size {config.batch_size} / accumulate {config.accumulate} leaves some of the "
            f"{ranks} ranks without an image"
        )
    live = any(isinstance(m, _BatchNorm) and m.training for m in net.train().modules())
    if ranks > 1 and live:
        raise ValueError("batch norms that are trained see one rank only: set freeze_bn")


class _Stop:
    """The signal that asked the training to stop, if any."""

    signal: int | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.signal = number


@contextmanager
def _stop_signals() -> Iterator[_Stop]:
    """Note SIGTERM and SIGUSR1 meanwhile, as batch systems send them before they kill."""
    stop = _Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    numbers = (signal.SIGTERM, signal.SIGUSR1)
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
