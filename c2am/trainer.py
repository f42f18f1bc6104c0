"""The one training loop: SGD, poly schedule, autocast, several ranks, checkpoints, logging."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Protocol

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel
from torch.profiler import record_function

from c2am import distributed, precision
from c2am.checkpoints import Checkpoints, read_weights, write_weights
from c2am.config import TrainConfig
from c2am.events import Events
from c2am.losses import LossLog, Terms, TrainingError
from c2am.progress import Bar, progress_bar
from c2am.trace import trace

if TYPE_CHECKING:
    from c2am.data.loader import TrainBatch


class Task(Protocol):
    """What a trained stage hands to the trainer.

    With several ranks each sees its part of the batch. `loss` then returns terms whose mean over
    the ranks is the term of the whole batch: `distributed.global_mean` makes them from a sum and a
    count. `after_step` sees the part alone; state that is kept there is reduced there.
    A task may also have `statistics() -> dict[str, float]`, which is logged beside the loss.
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
        # Reading the loss waits for the GPU, so there it is not done at every step.
        self.check_every = config.log_every if device.type == "cuda" else 1

    def run(self, after_step: Callable[[], object]) -> dict[str, float]:
        """All remaining steps, each followed by `after_step`; returns the metrics."""
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
        for part, batch in enumerate(parts):
            synchronized = _no_sync(self.step_module, part < len(parts) - 1)
            with synchronized, distributed.waiting(f"step {step + 1}"):
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
        save = steps % self.config.checkpoint_every == 0 and not last
        log = steps % self.config.log_every == 0 or last
        if not (save or log or steps % self.check_every == 0):
            return
        with distributed.waiting(f"the losses of step {steps}"):
            stopped = self.losses.check(stop.signal is not None)
        self.checkpoints.check()
        if log:
            self._log(steps, shown)
        if save or (stopped and not last):
            self.checkpoints.save(steps, self.losses.state())
        if stopped and not last:
            self.checkpoints.wait()
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
        # torch keeps what it compiles in /tmp, which is empty in a job's next container.
        cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache / "c2am" / "inductor"))
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
    live = any(isinstance(module, _BatchNorm) and module.training for module in net.modules())
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
