"""The one training loop: SGD, poly schedule, autocast, several ranks, checkpoints, logging."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel
from torch.profiler import record_function

from c2am import compiling, distributed, precision
from c2am.checkpoints import Checkpoints, read_weights, write_weights
from c2am.config import TrainConfig
from c2am.events import Events
from c2am.losses import LossLog, Terms, TrainingError
from c2am.models.folding import folded_while_training
from c2am.progress import Bar, progress_bar
from c2am.trace import trace
from c2am.transfer import ToHost

if TYPE_CHECKING:
    from c2am.data.loader import TrainBatch


class Task(Protocol):
    """What a trained stage hands to the trainer.

    With several ranks each sees its part of the batch. `loss` then returns terms whose mean over
    the ranks is the term of the whole batch: `distributed.global_mean` makes them from a sum and a
    count. `after_step` sees the part alone; state that is kept there is reduced there.
    A task may also have `statistics() -> dict[str, Tensor]`, 0-d, which is logged beside the loss.
    """

    @property
    def net(self) -> nn.Module:
        """The network that is trained."""

    def parameter_groups(self) -> list[dict]:
        """Groups for SGD, each with "params" and "lr"; "weight_decay", "momentum" may differ."""

    def loss(self, batch: TrainBatch, progress: float) -> Terms:
        """Scalar terms, float32, that are summed; `progress` is the part of the steps done."""

    def after_step(self, batch: TrainBatch, progress: float) -> None:
        """Called without gradient for each micro-batch of a step, after the step."""


class Loader(Protocol):
    """The part of `data.TrainLoader` that the trainer uses."""

    @property
    def steps_per_epoch(self) -> float:
        """Optimiser steps in one pass over the list."""

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
    profile: int = 0,
) -> dict[str, float]:
    """Train `task.net` and leave `folder/weights.safetensors`.

    It continues from the newest checkpoint in `folder`; on a CPU losses and result are bit for bit
    those of an uninterrupted training. If the weights are there already, they are loaded. With
    several ranks the gradient is that of the global batch. A step sums `config.accumulate`
    micro-batches and averages them: a term that is a mean over pixels is averaged per micro-batch.
    Of `profile` steps a trace is written (see `trace`).

    Returns:
        `loss` (mean since the last log), `images_per_second` of this process's session over all
        ranks, `steps`.

    Raises:
        TrainingError: the loss is not finite; the message names step and images.
        SystemExit: 128 + signal after SIGTERM or SIGUSR1, with a checkpoint written.
        WorkspaceError: a checkpoint cannot be written; those before it are still there.
    """
    _check_ranks(task.net.train(), config)
    finished = read_weights(folder, task.net, device)
    if finished is not None:
        return finished
    total = config.steps or max(1, round(config.epochs * loader.steps_per_epoch))
    task.net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(
        task.parameter_groups(),
        lr=config.lr,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        fused=True,
    )
    with Checkpoints(folder, task.net, optimizer, config.keep_checkpoints) as checkpoints:
        loop = _Loop(task, loader, config, total, optimizer, checkpoints, events, device)
        with trace(folder, profile, total=total - loop.first, device=device) as after_step:
            metrics = loop.run(after_step)
    task.net._compiled_call_impl = None  # scored next, at sizes it is not to be compiled for
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
        self.base_lr = [group["lr"] for group in optimizer.param_groups]
        self.losses = LossLog()
        self.first, state = checkpoints.restore()
        self.losses.restore(state)
        if self.first >= total:
            raise TrainingError(f"{checkpoints.folder} has a checkpoint of a longer training")
        self.step_module = _wrap(task, config, device)
        self.batches = loader.batches(self.first * config.accumulate)
        # Reading the loss waits for the GPU. So there it is not done at every step, and only when
        # the next step is queued: the GPU has that to do while the host reads.
        self.late = device.type == "cuda"
        self.check_every = config.log_every if self.late else 1
        self.line: _Line | None = None

    def run(self, after_step: Callable[[], object]) -> dict[str, float]:
        """All remaining steps, each followed by `after_step`; returns the metrics."""
        batch_size = self.config.batch_size
        began = time.perf_counter()
        bar = progress_bar(
            self.events.name, total=self.total * batch_size, done=self.first * batch_size
        )
        folded = folded_while_training(self.task.net)
        with _stop_signals() as stop, _constant_shapes(), folded, bar as shown:
            for step in range(self.first, self.total):
                self._step(step)
                shown.advance(batch_size)
                self._after(step + 1, stop, shown)
                after_step()
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
        with record_function("load"):
            parts = [next(self.batches) for _ in range(self.config.accumulate)]
        # All of it: where a GPU waits for other ranks, the host does wherever its queue is full.
        with distributed.waiting(f"step {step + 1}"):
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
        if step < self.config.warmup:
            factor *= (step + 1) / self.config.warmup
        for group, base in zip(self.optimizer.param_groups, self.base_lr, strict=True):
            group["lr"] = base * factor

    def _after(self, steps: int, stop: _Stop, shown: Bar) -> None:
        last = steps == self.total
        stopped = self.line is not None and self._read(shown)
        save = steps % self.config.checkpoint_every == 0 and not last
        log = steps % self.config.log_every == 0 or last
        if save or log or stopped or steps % self.check_every == 0:
            self._send(steps, log, stop.signal is not None)
            if save or last or stopped or not self.late:
                stopped |= self._read(shown)
        self.checkpoints.check()
        if save or (stopped and not last):
            self.checkpoints.save(steps, self.losses.state())
        if stopped and not last:
            self.checkpoints.wait()
            distributed.barrier()
            raise SystemExit(128 + (stop.signal or signal.SIGTERM))

    def _send(self, steps: int, log: bool, stop: bool) -> None:
        """Send the losses on their way to the host, and what is logged with them."""
        with distributed.waiting(f"the losses of step {steps}"):
            self.losses.send(stop)
        statistics: dict[str, Tensor] = getattr(self.task, "statistics", dict)() if log else {}
        values = [value.detach().float() for value in statistics.values()]
        sent = ToHost(torch.stack(values)) if values else None
        lr = self.optimizer.param_groups[0]["lr"]
        self.line = _Line(steps, log, lr, list(statistics), sent)

    def _read(self, shown: Bar) -> bool:
        """Read what was sent and log it; returns whether the training is to stop."""
        assert self.line is not None
        line, self.line = self.line, None
        with distributed.waiting(f"the losses of step {line.steps}"):
            stopped = self.losses.read()
        if line.log:
            self._log(line, shown)
        return stopped

    def _log(self, line: _Line, shown: Bar) -> None:
        values, parts, seconds = self.losses.take()
        values["images_per_second"] = (
            parts * self.config.batch_size / self.config.accumulate / seconds
        )
        values["lr"] = line.lr
        if line.statistics is not None:
            (numbers,) = line.statistics.wait()
            values |= zip(line.names, numbers.tolist(), strict=True)
        self.events.log(line.steps, values)
        shown.advance(0, f"loss {values['loss']:.4g}")


@dataclass(frozen=True)
class _Line:
    """A line of the log whose losses are on their way to the host."""

    steps: int
    log: bool
    """False: the losses are looked at, and go into a later line."""
    lr: float
    names: list[str]
    statistics: ToHost | None
    """(n,) float32, the task's statistics of those names."""


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
    # The network alone: the batch holds image ids, each of which would be compiled for.
    compiling.compile_for_training(task.net, device, config.compile, config.compile_mode)
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
    live = any(isinstance(module, _BatchNorm) and module.training for module in net.modules())
    if ranks > 1 and live:
        raise ValueError("batch norms that are trained see one rank only: set freeze_bn")


@contextmanager
def _constant_shapes() -> Iterator[None]:
    """Let cuDNN try its algorithms for each shape meanwhile; elsewhere images have many."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


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
