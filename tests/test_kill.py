"""A training that is killed at random points, again and again, ends as if nothing had happened."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_training import assert_same, weights

from c2am.workspace import TEMPORARY

ROOT = Path(__file__).parent.parent
TINY = Path(__file__).with_name("tiny_training.py")


def start(folder: Path, slow: float) -> subprocess.Popen:
    words = ["--steps", "40", "--checkpoint-every", "2", "--slow", str(slow)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, TINY, folder, *words], env=environment, stderr=subprocess.PIPE, text=True
    )


def finish(process: subprocess.Popen) -> None:
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors


def wait_for_checkpoint(folder: Path, process: subprocess.Popen, beyond: int) -> int:
    """Step of the first checkpoint after `beyond`."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        steps = [int(path.stem.split("-")[1]) for path in folder.glob("checkpoint-*.safetensors")]
        if max(steps, default=0) > beyond:
            return max(steps)
        time.sleep(0.005)
    pytest.fail(f"no checkpoint came: {process.stderr.read()}")


def test_killed_again_and_again(tmp_path):
    finish(start(tmp_path / "whole", slow=0))
    rng = random.Random(3)
    folder, reached = tmp_path / "killed", 0
    for _ in range(4):
        process = start(folder, slow=0.05)
        reached = wait_for_checkpoint(folder, process, beyond=reached)
        time.sleep(rng.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        process.stderr.close()
        assert not (folder / "weights.safetensors").exists()
    finish(start(folder, slow=0))
    assert_same(weights(tmp_path / "whole"), weights(folder))


def test_a_kill_while_a_file_is_written_leaves_the_old_one(tmp_path):
    script = (
        "import os, signal, sys\n"
        "from c2am.workspace import atomic\n"
        "with atomic(sys.argv[1]) as path:\n"
        "    path.write_text('new and not wh')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    target = tmp_path / "value.json"
    target.write_text("old")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script, target], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    assert target.read_text() == "old"
    assert len(list(tmp_path.glob(f"{TEMPORARY}*"))) == 1
