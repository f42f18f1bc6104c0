"""The training loop: steps, schedule, losses read late, signals, compilation, traces."""

import gzip
import json
import math
import os
import signal
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from tiny_training import (
    TinyLoader,
    TinyTask,
    assert_same,
    losses,
    tiny_config,
    tiny_run,
    tiny_train,
    weights,
)
from torch._dynamo.utils import counters

from c2am import distributed, trainer
from c2am.events import Events, read_metrics
from c2am.trainer import TrainingError, train


@pytest.mark.parametrize("warmup", [0, 3])
def test_matches_a_plain_loop_of_sgd_and_poly(tmp_path, warmup):
    schedule = {"steps": 7, "poly_interval": 2, "power": 0.8, "warmup": warmup}
    config = tiny_config(**schedule)
    task, loader = TinyTask(), TinyLoader(config)
    optimizer = torch.optim.SGD(task.parameter_groups(), momentum=0.9, weight_decay=1e-3)
    base = [group["lr"] for group in optimizer.param_groups]
    batches = loader.batches(0)
    for step in range(7):
        for group, lr in zip(optimizer.param_groups, base, strict=True):
            rise = min((step + 1) / 3, 1) if warmup else 1
            group["lr"] = lr * rise * (1 - (step // 2 * 2) / 7) ** 0.8
        optimizer.zero_grad()
        sum(task.loss(next(batches), step / 7).values()).backward()
        optimizer.step()

    tiny_run(tmp_path, **schedule)
    for name, tensor in weights(tmp_path).items():
        if name != "seen":
            torch.testing.assert_close(tensor, task.net.state_dict()[name])


def test_learns_and_reports(tmp_path):
    metrics = tiny_run(tmp_path, steps=60)
    lines = read_metrics(tmp_path / "events", "tiny")
    assert [line["step"] for line in lines] == list(range(3, 61, 3))
    assert lines[-1]["loss"] == pytest.approx(metrics["loss"])
    assert metrics["loss"] < 0.8 * lines[0]["loss"]
    assert lines[0]["loss"] == pytest.approx(lines[0]["classes"] + lines[0]["pixels"])
    assert lines[0]["seen"] == 3 * 6
    assert lines[-1]["lr"] == pytest.approx(0.1 * (1 / 60) ** 0.9)
    assert metrics["steps"] == 60
    assert metrics["images_per_second"] > 0


def test_a_step_is_watched_to_its_end(tmp_path, monkeypatch):
    """Loading is not: that is what others wait for."""
    places, inside = [], []

    @contextmanager
    def waiting(place):
        places.append(place)
        yield
        places.pop()

    class Notes(TinyLoader):
        def batches(self, start):
            for batch in super().batches(start):
                inside.append(("load", list(places)))
                yield batch

    class Task(TinyTask):
        def after_step(self, batch, progress):
            inside.append(("end", list(places)))

    monkeypatch.setattr(distributed, "waiting", waiting)
    config = tiny_config(steps=2)
    tiny_train(tmp_path, config, Notes(config), Task())
    expected = [[("load", []), ("end", [f"step {step}"])] for step in (1, 2)]
    assert inside == expected[0] + expected[1]


def test_epochs_become_steps(tmp_path):
    assert tiny_run(tmp_path, steps=None, epochs=2.0)["steps"] == round(2 * 23 / 6)


def test_progress_is_the_share_done(tmp_path):
    config = tiny_config(steps=4)
    task = TinyTask()
    tiny_train(tmp_path, config, TinyLoader(config), task)
    assert task.progress == [0, 0.25, 0.5, 0.75]


def test_nan_stops_with_step_and_images(tmp_path):
    with pytest.raises(TrainingError, match=r"step 6.*classes = nan.*image7, image8"):
        tiny_run(tmp_path, nan_at=5)
    assert not (tmp_path / "weights.safetensors").exists()
    assert [path.name for path in tmp_path.glob("check*")] == ["checkpoint-4.safetensors"]


def late(monkeypatch) -> None:
    """Losses are read every three steps and a step late, as on a GPU."""
    original = trainer._Loop.__init__

    def set_up(loop, task, loader, config, *rest):
        original(loop, task, loader, config, *rest)
        loop.late, loop.check_every = True, config.log_every

    monkeypatch.setattr(trainer._Loop, "__init__", set_up)


def test_read_late_the_lines_are_the_same(tmp_path, monkeypatch):
    tiny_run(tmp_path / "at once", steps=11)
    late(monkeypatch)
    tiny_run(tmp_path / "late", steps=11)
    assert_same(weights(tmp_path / "at once"), weights(tmp_path / "late"))
    lines = [
        [{k: v for k, v in line.items() if k not in ("time", "images_per_second")} for line in each]
        for each in (
            read_metrics(tmp_path / name / "events", "tiny") for name in ("at once", "late")
        )
    ]
    assert lines[0] == lines[1]
    assert [line["step"] for line in lines[1]] == [3, 6, 9, 11]


def test_read_late_nan_stops_with_its_step_and_no_checkpoint_has_it(tmp_path, monkeypatch):
    late(monkeypatch)
    with pytest.raises(TrainingError, match=r"step 6.*classes = nan.*image7, image8"):
        tiny_run(tmp_path, nan_at=5)
    assert [path.name for path in tmp_path.glob("check*")] == ["checkpoint-4.safetensors"]


def test_read_late_a_signal_saves_what_resumes(tmp_path, monkeypatch):
    tiny_run(tmp_path / "whole")
    late(monkeypatch)
    stopped(tmp_path / "cut", signal.SIGUSR1, at=4)
    assert (tmp_path / "cut" / "checkpoint-7.safetensors").exists()  # told at 6, read at 7
    tiny_run(tmp_path / "cut")
    assert_same(weights(tmp_path / "whole"), weights(tmp_path / "cut"))
    assert losses(tmp_path / "whole") == losses(tmp_path / "cut")


def test_nan_in_an_accumulated_part_names_its_images(tmp_path):
    with pytest.raises(TrainingError, match=r"step 3.*images image15, image16, image17$"):
        tiny_run(tmp_path, nan_at=5, accumulate=2)


def stopped(folder: Path, number: int, at: int) -> None:
    """A training that gets a signal while micro-batch `at` is loaded, and ends by it."""

    class Signalled(TinyLoader):
        def batches(self, start):
            for index, batch in enumerate(super().batches(start), start=start):
                if index == at:
                    os.kill(os.getpid(), number)
                yield batch

    config = tiny_config()
    with pytest.raises(SystemExit) as exit_info:
        tiny_train(folder, config, Signalled(config), TinyTask())
    assert exit_info.value.code == 128 + number


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_saves_and_exits(tmp_path, number):
    before = signal.getsignal(number)
    stopped(tmp_path / "cut", number, at=6)
    assert signal.getsignal(number) == before
    config = tiny_config()
    assert (tmp_path / "cut" / "checkpoint-7.safetensors").exists()
    loader = TinyLoader(config)
    tiny_train(tmp_path / "cut", config, loader, TinyTask())
    assert loader.started_at == 7
    tiny_run(tmp_path / "whole")
    assert_same(weights(tmp_path / "whole"), weights(tmp_path / "cut"))


def test_trains_in_a_thread(tmp_path):
    result: list[dict] = []
    thread = threading.Thread(target=lambda: result.append(tiny_run(tmp_path)))
    thread.start()
    thread.join()
    assert result[0]["steps"] == 12


def test_bfloat16_stays_close_to_float32(tmp_path):
    exact = tiny_run(tmp_path / "a", steps=30)["loss"]
    rounded = tiny_run(tmp_path / "b", steps=30, precision="bfloat16")["loss"]
    assert rounded == pytest.approx(exact, rel=0.05)
    assert rounded != exact


def test_compiled_network_gives_the_same_and_is_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")  # so that it is unset again afterwards
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    tiny_run(tmp_path / "plain", steps=3)
    for folder in ("compiled", "again"):
        torch.compiler.reset()
        counters.clear()
        config, task = tiny_config(steps=3, compile=True), TinyTask()
        tiny_train(tmp_path / folder, config, TinyLoader(config), task)
        assert counters["stats"]["unique_graphs"] > 0
    assert counters["inductor"]["fxgraph_cache_miss"] == 0
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "cache" / "c2am" / "inductor")
    counters.clear()
    task.net(torch.zeros(1, 3, 9, 9))  # no longer compiled
    assert not counters["stats"]
    for name, tensor in weights(tmp_path / "plain").items():
        other = weights(tmp_path / "compiled")[name]
        torch.testing.assert_close(tensor, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("steps", "traced"), [(20, 3), (3, 2)])
def test_a_trace_of_some_steps(tmp_path, steps, traced):
    config, task = tiny_config(steps=steps), TinyTask()
    loader = TinyLoader(config)
    with Events(tmp_path / "events", "tiny") as events:
        train(
            task,
            loader,
            config,
            folder=tmp_path,
            events=events,
            device=torch.device("cpu"),
            profile=3,
        )
    with gzip.open(tmp_path / "trace-0.json.gz") as file:
        names = [event.get("name", "") for event in json.load(file)["traceEvents"]]
    assert names.count("load") == traced
    assert names.count("Optimizer.step#SGD.step") == traced
    assert "aten::convolution" in names
    tiny_run(tmp_path / "plain", steps=steps)
    assert_same(weights(tmp_path / "plain"), weights(tmp_path))


def test_a_parameter_outside_of_the_network_is_an_error(tmp_path):
    class Stray(TinyTask):
        def parameter_groups(self):
            stray = torch.nn.Parameter(torch.zeros(1))
            return [*super().parameter_groups(), {"params": [stray], "lr": 1.0}]

    config = tiny_config()
    with pytest.raises(ValueError, match="not part of the network"):
        tiny_train(tmp_path, config, TinyLoader(config), Stray())


def test_metrics_are_json(tmp_path):
    metrics = tiny_run(tmp_path)
    assert json.loads(json.dumps(metrics)) == metrics
    assert all(math.isfinite(value) for value in metrics.values())


def test_trained_batch_norm_on_several_ranks_is_an_error(tmp_path, monkeypatch):
    class Normed(TinyTask):
        def __init__(self):
            super().__init__()
            self.net.insert(1, torch.nn.BatchNorm2d(4))

    config = tiny_config()
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    with pytest.raises(ValueError, match="set freeze_bn"):
        tiny_train(tmp_path, config, TinyLoader(config), Normed())
