"""What a training leaves, and that one that was cut off anywhere goes on as if it had not been."""

import errno
import os
import random
import threading
from pathlib import Path

import pytest
import torch
from tiny_training import (
    NoisyTask,
    TinyLoader,
    TinyTask,
    assert_same,
    losses,
    tiny_config,
    tiny_run,
    tiny_train,
    weights,
)

from c2am import checkpoints, workspace
from c2am.trainer import TrainingError
from c2am.workspace import WorkspaceError


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


def test_leaves_weights_and_no_checkpoint(tmp_path):
    tiny_run(tmp_path)
    assert {path.name for path in tmp_path.glob("*.*")} == {"training.json", "weights.safetensors"}


def test_the_same_training_gives_the_same_bytes(tmp_path):
    tiny_run(tmp_path / "a")
    tiny_run(tmp_path / "b", log_every=4)
    contents = [(tmp_path / name / "weights.safetensors").read_bytes() for name in "ab"]
    assert contents[0] == contents[1]


def test_a_finished_training_is_loaded(tmp_path):
    metrics = tiny_run(tmp_path)
    config = tiny_config()
    loader, task = TinyLoader(config), TinyTask()
    assert tiny_train(tmp_path, config, loader, task) == metrics
    assert loader.started_at is None
    assert_same(task.net.state_dict(), weights(tmp_path))


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("step", [5, 8, 11])
def test_resumes_bit_for_bit(tmp_path, step, accumulate):
    tiny_run(tmp_path / "whole", accumulate=accumulate)
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

    tiny_run(tmp_path / "whole")
    config = tiny_config()
    loader = Announces(config, at=7)
    loader.fault_at = 6
    monkeypatch.setattr(checkpoints, "write_tensors", slow)
    with pytest.raises(ZeroDivisionError):
        tiny_train(tmp_path / "cut", config, loader, TinyTask())
    assert [path.name for path in (tmp_path / "cut").glob("c*")] == ["checkpoint-4.safetensors"]
    tiny_run(tmp_path / "cut")
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
            tiny_run(tmp_path / "cut")
    assert [path.name for path in (tmp_path / "cut").glob("*.*")] == ["checkpoint-4.safetensors"]
    tiny_run(tmp_path / "cut")
    tiny_run(tmp_path / "whole")
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
    tiny_run(tmp_path / "whole")
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
        tiny_run(tmp_path, steps=8)
