import errno
import gzip
import json
import math
import os
import random
import signal
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from tiny_training import NoisyTask, TinyLoader, TinyTask, tiny_config, tiny_train
from torch._dynamo.utils import counters

from c2am import checkpoints, distributed, trainer, workspace
from c2am.events import Events, read_metrics
from c2am.trainer import TrainingError, train
from c2am.workspace import WorkspaceError, read_tensors


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return read_tensors(folder / "weights.safetensors")


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


def losses(folder: Path) -> list[tuple[int, float]]:
    return [(line["step"], line["loss"]) for line in read_metrics(folder / "events", "tiny")]


def run(folder: Path, *, nan_at: int | None = None, **changes: object) -> dict:
    config = tiny_config(**changes)
    return tiny_train(folder, config, TinyLoader(config, nan_at=nan_at), TinyTask())


class Dies(TinyLoader):
    """Ends like a killed process: without any chance to save."""

    def __init__(self, config, at: int) -> None:
        super().__init__(config)
        self.at = at

    def batches(self, start):
        for index, batch in enumerate(super().batches(start), start=start):
            if index == self.at:
                raise ZeroDivisionError
            yield batch


def run_and_die(folder: Path, at: int, **changes: object) -> None:
    config = tiny_config(**changes)
    with pytest.raises(ZeroDivisionError):
        tiny_train(folder, config, Dies(config, at), TinyTask())


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

    run(tmp_path, **schedule)
    for name, tensor in weights(tmp_path).items():
        if name != "seen":
            torch.testing.assert_close(tensor, task.net.state_dict()[name])


def test_learns_and_reports(tmp_path):
    metrics = run(tmp_path, steps=60)
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
    assert run(tmp_path, steps=None, epochs=2.0)["steps"] == round(2 * 23 / 6)


def test_progress_is_the_share_done(tmp_path):
    config = tiny_config(steps=4)
    task = TinyTask()
    tiny_train(tmp_path, config, TinyLoader(config), task)
    assert task.progress == [0, 0.25, 0.5, 0.75]


def test_leaves_weights_and_no_checkpoint(tmp_path):
    run(tmp_path)
    assert {path.name for path in tmp_path.glob("*.*")} == {"training.json", "weights.safetensors"}


def test_the_same_training_gives_the_same_bytes(tmp_path):
    run(tmp_path / "a")
    run(tmp_path / "b", log_every=4)
    contents = [(tmp_path / name / "weights.safetensors").read_bytes() for name in "ab"]
    assert contents[0] == contents[1]


def test_a_finished_training_is_loaded(tmp_path):
    metrics = run(tmp_path)
    config = tiny_config()
    loader, task = TinyLoader(config), TinyTask()
    assert tiny_train(tmp_path, config, loader, task) == metrics
    assert loader.started_at is None
    assert_same(task.net.state_dict(), weights(tmp_path))


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("step", [5, 8, 11])
def test_resumes_bit_for_bit(tmp_path, step, accumulate):
    run(tmp_path / "whole", accumulate=accumulate)
    run_and_die(tmp_path / "cut", step * accumulate, accumulate=accumulate)
    config = tiny_config(accumulate=accumulate)
    loader = TinyLoader(config)
    tiny_train(tmp_path / "cut", config, loader, TinyTask())
    assert loader.started_at == step // 4 * 4 * accumulate
    assert_same(weights(tmp_path / "whole"), weights(tmp_path / "cut"))
    # Checkpoints lie between the lines of the log, which are means of three steps.
    assert losses(tmp_path / "whole") == losses(tmp_path / "cut")


def test_random_state_is_resumed(tmp_path):
    config = tiny_config()
    tiny_train(tmp_path / "whole", config, TinyLoader(config), NoisyTask())
    with pytest.raises(ZeroDivisionError):
        tiny_train(tmp_path / "cut", config, Dies(config, 6), NoisyTask())
    tiny_train(tmp_path / "cut", config, TinyLoader(config), NoisyTask())
    assert_same(weights(tmp_path / "whole"), weights(tmp_path / "cut"))


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_keeps_the_newest_checkpoints(tmp_path, keep):
    run_and_die(tmp_path, 11, checkpoint_every=2, keep_checkpoints=keep)
    steps = sorted(int(path.stem.split("-")[1]) for path in tmp_path.glob("checkpoint*"))
    assert steps == [6, 8, 10][-keep:]


def test_training_goes_on_while_a_checkpoint_is_written(tmp_path, monkeypatch):
    """And the file holds the state of its step, not of the later ones."""
    at_six = threading.Event()

    def slow(*arguments):
        assert at_six.wait(60)
        workspace.write_tensors(*arguments)

    class Announces(Dies):
        def fault(self):
            at_six.set()

    run(tmp_path / "whole")
    config = tiny_config()
    loader = Announces(config, at=7)
    loader.fault_at = 6
    monkeypatch.setattr(checkpoints, "write_tensors", slow)
    with pytest.raises(ZeroDivisionError):
        tiny_train(tmp_path / "cut", config, loader, TinyTask())
    assert [path.name for path in (tmp_path / "cut").glob("c*")] == ["checkpoint-4.safetensors"]
    run(tmp_path / "cut")
    assert_same(weights(tmp_path / "whole"), weights(tmp_path / "cut"))


def test_a_full_disk_ends_the_training_and_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    flushed = []

    def full(descriptor: int) -> None:
        flushed.append(descriptor)
        if len(flushed) > 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(WorkspaceError, match=r"checkpoint-8\.safetensors: .*No space left"):
            run(tmp_path / "cut")
    assert [path.name for path in (tmp_path / "cut").glob("*.*")] == ["checkpoint-4.safetensors"]
    run(tmp_path / "cut")
    run(tmp_path / "whole")
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")


def test_every_damaged_bit_is_noticed(tmp_path):
    run_and_die(tmp_path, 6)
    (path,) = tmp_path.glob("checkpoint-*")
    whole = path.read_bytes()
    task = TinyTask()
    optimizer = torch.optim.SGD(task.parameter_groups())
    with checkpoints.Checkpoints(tmp_path, task.net, optimizer) as found:
        assert found.restore()[0] == 4
        for bit in random.Random(0).sample(range(8 * len(whole)), 100):
            damaged = bytearray(whole)
            damaged[bit // 8] ^= 1 << bit % 8
            path.write_bytes(damaged)
            with pytest.warns(UserWarning, match=path.name):
                assert found.restore() == (0, {})


@pytest.mark.parametrize("damage", ["torn", "one bit", "empty", "renamed"])
def test_a_damaged_checkpoint_is_passed_over(tmp_path, damage):
    run(tmp_path / "whole")
    run_and_die(tmp_path / "cut", 10)
    path = tmp_path / "cut" / "checkpoint-8.safetensors"
    content = bytearray(path.read_bytes())
    if damage == "torn":
        del content[len(content) // 2 :]
    elif damage == "empty":
        content.clear()
    elif damage == "one bit":
        content[-1] ^= 1
    else:
        path = path.rename(path.with_name("checkpoint-9.safetensors"))
    path.write_bytes(content)
    config = tiny_config()
    loader = TinyLoader(config)
    with pytest.warns(UserWarning, match=path.name):
        tiny_train(tmp_path / "cut", config, loader, TinyTask())
    assert loader.started_at == 4
    assert_same(weights(tmp_path / "whole"), weights(tmp_path / "cut"))


def test_a_checkpoint_of_another_network_is_an_error(tmp_path):
    run_and_die(tmp_path, 6)

    class Other(TinyTask):
        def __init__(self):
            super().__init__()
            self.net.append(torch.nn.Linear(2, 2))

    config = tiny_config()
    with pytest.raises(RuntimeError, match=r"5\.weight"):
        tiny_train(tmp_path, config, TinyLoader(config), Other())


def test_a_checkpoint_beyond_the_end_is_an_error(tmp_path):
    run_and_die(tmp_path, 10)
    with pytest.raises(TrainingError, match="longer"):
        run(tmp_path, steps=8)


def test_nan_stops_with_step_and_images(tmp_path):
    with pytest.raises(TrainingError, match=r"step 6.*classes = nan.*image7, image8"):
        run(tmp_path, nan_at=5)
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
    run(tmp_path / "at once", steps=11)
    late(monkeypatch)
    run(tmp_path / "late", steps=11)
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
        run(tmp_path, nan_at=5)
    assert [path.name for path in tmp_path.glob("check*")] == ["checkpoint-4.safetensors"]


def test_read_late_a_signal_saves_what_resumes(tmp_path, monkeypatch):
    run(tmp_path / "whole")
    late(monkeypatch)
    stopped(tmp_path / "cut", signal.SIGUSR1, at=4)
    assert (tmp_path / "cut" / "checkpoint-7.safetensors").exists()  # told at 6, read at 7
    run(tmp_path / "cut")
    assert_same(weights(tmp_path / "whole"), weights(tmp_path / "cut"))
    assert losses(tmp_path / "whole") == losses(tmp_path / "cut")


def test_nan_in_an_accumulated_part_names_its_images(tmp_path):
    with pytest.raises(TrainingError, match=r"step 3.*images image15, image16, image17$"):
        run(tmp_path, nan_at=5, accumulate=2)


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
    run(tmp_path / "whole")
    assert_same(weights(tmp_path / "whole"), weights(tmp_path / "cut"))


def test_trains_in_a_thread(tmp_path):
    result: list[dict] = []
    thread = threading.Thread(target=lambda: result.append(run(tmp_path)))
    thread.start()
    thread.join()
    assert result[0]["steps"] == 12


def test_bfloat16_stays_close_to_float32(tmp_path):
    exact = run(tmp_path / "a", steps=30)["loss"]
    rounded = run(tmp_path / "b", steps=30, precision="bfloat16")["loss"]
    assert rounded == pytest.approx(exact, rel=0.05)
    assert rounded != exact


def test_compiled_network_gives_the_same_and_is_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")  # so that it is unset again afterwards
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    run(tmp_path / "plain", steps=3)
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
    run(tmp_path / "plain", steps=steps)
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
    metrics = run(tmp_path)
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
