"""What happens to several ranks when one of them is killed, hangs, or is on a host of its own.

Ranks are forked from a server that has imported torch, or started by torchrun where it matters.
"""

import multiprocessing
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import tiny_training
from tiny_training import assert_same, losses, weights
from torch.distributed import HashStore

from c2am import distributed, pipeline, watchdog
from c2am.joining import fresh_store

ROOT = Path(__file__).parent.parent
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["c2am.trainer", "c2am.pipeline"])


def free_port() -> int:
    with closing(socket.socket()) as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def start(target: Callable[[list[str]], None], words: list[str], output: Path) -> list[BaseProcess]:
    """Two ranks of `target`; what they print is in `output/rank-<r>.txt`."""
    port = str(free_port())
    started = [
        FORKS.Process(target=_rank, args=(target, words, output, rank, port)) for rank in range(2)
    ]
    for process in started:
        process.start()
    return started


def _rank(
    target: Callable[[list[str]], None], words: list[str], output: Path, rank: int, port: str
) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    with (output / f"rank-{rank}.txt").open("w") as file:
        os.dup2(file.fileno(), 2)
    target(words)


def test_a_rank_that_hangs_is_named(tmp_path):
    words = [str(tmp_path / "run"), "--hang-at", "5", "--timeout", "5", "--checkpoint-every", "2"]
    main, hung = start(tiny_training.main, words, tmp_path)
    try:
        main.join(120)
        assert main.exitcode == watchdog.EXIT_CODE
        assert hung.is_alive()
        said = (tmp_path / "rank-0.txt").read_text()
        who = f"rank 1 ({socket.gethostname()}, process {hung.pid}; last seen at"
        assert f"rank 0 waited 5 s at step 6 for {who} the losses of step 5)" in said
    finally:
        hung.terminate()
        hung.join(60)
    assert list((tmp_path / "run").glob("checkpoint-4.*"))


def test_a_rank_killed_on_one_of_two_hosts_is_restarted_and_nothing_is_lost(tmp_path):
    """Two launchers with addresses of their own; a batch of 5 falls on the ranks as 2 and 3."""
    words = ["--batch-size", "5", "--checkpoint-every", "4", "--noisy"]
    whole = start(tiny_training.main, [str(tmp_path / "whole"), *words], tmp_path)
    port = free_port()
    launchers = [
        launch_host(host, port, tmp_path / "cut", *words, "--kill-at", "6") for host in range(2)
    ]
    deadline = time.monotonic() + 200
    while None in [launcher.poll() for launcher in launchers] and time.monotonic() < deadline:
        time.sleep(0.1)
    codes = [launcher.poll() for launcher in launchers]
    for launcher in launchers:
        launcher.terminate()
    said = [(tmp_path / f"host-{host}.txt").read_text() for host in range(2)]
    assert codes == [0, 0], "\n".join(said)
    for process in whole:
        process.join(60)
        assert process.exitcode == 0
    assert (tmp_path / "cut" / "killed").exists()
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    assert_same(weights(tmp_path / "cut"), weights(tmp_path / "whole"))


def launch_host(host: int, port: int, folder: Path, *words: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2"]
    command += [
        "--nproc-per-node",
        "1",
        "--max-restarts",
        "1",
        "--local-addr",
        f"127.0.0.{host + 2}",
    ]
    command += [
        "--rdzv-backend",
        "c10d",
        "--rdzv-endpoint",
        f"127.0.0.2:{port}",
        "--rdzv-id",
        "job",
    ]
    command += [tiny_training.__file__, str(folder), *words]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment |= {"GLOO_SOCKET_IFNAME": "lo"}
    # Into a file: a pipe that nobody reads meanwhile would stop a host that says much.
    with (folder.parent / f"host-{host}.txt").open("w") as said:
        return subprocess.Popen(command, env=environment, stderr=said)


def test_an_attempt_does_not_find_what_an_earlier_one_has_left():
    """Twice in one store; the second time with a rank that is missing."""
    store = HashStore()
    second = timedelta(seconds=60)
    for attempt in range(2):
        with ThreadPoolExecutor(3) as pool:
            joined = list(pool.map(lambda rank: fresh_store(store, rank, 3, second), range(3)))
        assert not any(part.check(["address"]) for part in joined)
        joined[1].set("address", str(attempt))
        assert [part.get("address") for part in joined] == [str(attempt).encode()] * 3
    with ThreadPoolExecutor(2) as pool:
        short = timedelta(seconds=1)
        main, _ = (pool.submit(fresh_store, store, rank, 3, short) for rank in (0, 2))
        with pytest.raises(TimeoutError, match=r"not come: 1$"):
            main.result()


def see_own_folder(words: list[str]) -> None:
    root = Path(words[0]) / (os.environ["RANK"] if len(words) > 1 else "")
    root.mkdir(exist_ok=True)
    with distributed.session("cpu", timeout=120.0) as device:
        pipeline.check_shared(root, device)


@pytest.mark.parametrize("shared", [True, False])
def test_a_folder_that_not_all_hosts_share_is_refused(tmp_path, shared):
    words = [str(tmp_path)] if shared else [str(tmp_path), "apart"]
    ranks = start(see_own_folder, words, tmp_path)
    began = time.monotonic()
    ranks[1].join(60)
    said = (tmp_path / "rank-1.txt").read_text()
    assert time.monotonic() - began < 60
    assert (ranks[1].exitcode == 0) == shared
    assert ("all hosts have to share the folder of the run" in said) != shared
    ranks[0].terminate()
    ranks[0].join(60)
