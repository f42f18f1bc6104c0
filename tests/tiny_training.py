"""A training of a second: small network, drawn images; also a script, for torchrun and kills.

python tests/tiny_training.py FOLDER [--steps 12] [--accumulate 1] [--slow SECONDS] ...
"""

import argparse
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from c2am import distributed
from c2am.config import TrainConfig
from c2am.events import Events, read_metrics
from c2am.trainer import train
from c2am.workspace import read_tensors

IMAGES = 23
SIDE = 8


@dataclass
class Batch:
    """The fields of `TrainBatch` that the trainer and the task use."""

    images: Tensor
    labels: Tensor
    ids: list[str]


class TinyLoader:
    """Sample n of the stream is image n % 23; rank r of R takes its part of each micro-batch."""

    fault_at: int | None = None

    def __init__(self, config: TrainConfig, slow: float = 0.0, nan_at: int | None = None) -> None:
        self.size = config.batch_size // config.accumulate
        self.slow, self.nan_at = slow, nan_at
        self.steps_per_epoch = IMAGES / config.batch_size
        self.started_at: int | None = None
        drawn = torch.Generator().manual_seed(5)
        self.images = torch.randn(IMAGES, 3, SIDE, SIDE, generator=drawn)
        self.labels = (torch.rand(IMAGES, 2, generator=drawn) > 0.5).float()

    def batches(self, start: int) -> Iterator[Batch]:
        self.started_at = start
        rank, world = distributed.rank(), distributed.world_size()
        mine = slice(rank * self.size // world, (rank + 1) * self.size // world)
        micro = start
        while True:
            time.sleep(self.slow)
            if micro == self.fault_at:
                self.fault()
            samples = [n % IMAGES for n in range(micro * self.size, (micro + 1) * self.size)][mine]
            images = self.images[samples].clone()
            if micro == self.nan_at and rank == world - 1:
                images[0, 0, 0, 0] = float("nan")
            yield Batch(images, self.labels[samples], [f"image{n}" for n in samples])
            micro += 1

    def fault(self) -> None:
        """What happens at `fault_at`."""


class Hangs(TinyLoader):
    def fault(self) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(10_000)


class IsKilled(TinyLoader):
    """Once: at the next time there is `mark`."""

    mark: Path

    def fault(self) -> None:
        if not self.mark.exists():
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)


class TinyNet(nn.Sequential):
    """A network with a forward of its own: torch.compile passes over torch's containers."""

    def __init__(self) -> None:
        pool = nn.AdaptiveAvgPool2d(2)
        super().__init__(nn.Conv2d(3, 4, 3), nn.ReLU(), pool, nn.Flatten(), nn.Linear(16, 2))
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images)


class TinyTask:
    """A mean over images, and a mean over as many pixels as an image happens to have above 0."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.net = TinyNet()
        self.progress: list[float] = []

    def parameter_groups(self) -> list[dict]:
        return [
            {"params": self.net[0].parameters(), "lr": 0.1},
            {"params": self.net[4].parameters(), "lr": 0.5, "weight_decay": 0.0},
        ]

    def loss(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        self.progress.append(progress)
        images = len(batch.ids)
        logits = self.net(batch.images)
        classes = F.binary_cross_entropy_with_logits(logits, batch.labels)
        features = self.net[0](batch.images)
        inside = batch.images[:, :1, 1:-1, 1:-1] > 0
        return {
            "classes": distributed.global_mean(classes * images, images),
            "pixels": 0.1 * distributed.global_mean((features**2 * inside).sum(), inside.sum()),
        }

    def after_step(self, batch: Batch, progress: float) -> None:
        self.net.seen += distributed.all_reduce_sum(torch.tensor(float(len(batch.ids))))

    def statistics(self) -> dict[str, Tensor]:
        return {"seen": self.net.seen}


class NoisyTask(TinyTask):
    """Draws random numbers, as many as there are pixels on its rank."""

    def loss(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        batch.images = batch.images + 0.1 * torch.randn_like(batch.images)
        return super().loss(batch, progress)


def tiny_config(**changes: object) -> TrainConfig:
    values = {"steps": 12, "batch_size": 6, "checkpoint_every": 4, "log_every": 3}
    return TrainConfig(**(values | {"precision": "float32", "weight_decay": 1e-3} | changes))


def tiny_train(folder: Path, config: TrainConfig, loader: TinyLoader, task: TinyTask) -> dict:
    with Events(folder / "events", "tiny") as events:
        device = torch.device("cpu")
        return train(task, loader, config, folder=folder, events=events, device=device)


def tiny_run(folder: Path, *, nan_at: int | None = None, **changes: object) -> dict:
    """A whole training with the changed fields of the configuration; returns its metrics."""
    config = tiny_config(**changes)
    return tiny_train(folder, config, TinyLoader(config, nan_at=nan_at), TinyTask())


def weights(folder: Path) -> dict[str, Tensor]:
    """What a training ended with."""
    return read_tensors(folder / "weights.safetensors")


def losses(folder: Path) -> list[tuple[int, float]]:
    """Step and loss of each line of the log."""
    return [(line["step"], line["loss"]) for line in read_metrics(folder / "events", "tiny")]


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    """Tensors of the same names are equal bit for bit."""
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--accumulate", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=6)
    parser.add_argument("--checkpoint-every", type=int, default=4)
    parser.add_argument("--slow", type=float, default=0.0)
    parser.add_argument("--nan-at", type=int)
    parser.add_argument("--fail-rank", type=int)
    parser.add_argument("--hang-at", type=int, help="in the last rank's loader")
    parser.add_argument("--kill-at", type=int, help="the last rank, once")
    parser.add_argument("--timeout", type=float, default=120.0)
    parser.add_argument("--noisy", action="store_true")
    options = parser.parse_args(argv)
    config = tiny_config(
        steps=options.steps,
        accumulate=options.accumulate,
        batch_size=options.batch_size,
        checkpoint_every=options.checkpoint_every,
    )
    torch.set_num_threads(1)
    with distributed.session("cpu", options.timeout):
        if options.fail_rank == distributed.rank():
            sys.exit(3)
        kind = Hangs if options.hang_at else IsKilled if options.kill_at else TinyLoader
        loader = kind(config, options.slow, options.nan_at)
        if distributed.rank() == distributed.world_size() - 1:
            loader.fault_at = options.hang_at or options.kill_at
            loader.mark = options.folder / "killed"
        tiny_train(options.folder, config, loader, NoisyTask() if options.noisy else TinyTask())


if __name__ == "__main__":
    main()
