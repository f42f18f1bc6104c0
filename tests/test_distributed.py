import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from c2am import distributed
from c2am.workspace import read_tensors

ROOT = Path(__file__).parent.parent
TINY = Path(__file__).with_name("tiny_training.py")


def launch(ranks: int, script: Path, *words: object) -> subprocess.Popen:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={ranks}", str(script), *map(str, words)]
    paths = os.pathsep.join((str(ROOT), str(TINY.parent)))
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True)


def torchrun(ranks: int, script: Path, *words: object) -> subprocess.CompletedProcess:
    process = launch(ranks, script, *words)
    output, errors = process.communicate(timeout=240)
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def train(ranks: int, folder: Path, *words: object) -> dict[str, torch.Tensor]:
    done = torchrun(ranks, TINY, folder, *words)
    assert done.returncode == 0, done.stderr
    return read_tensors(folder / "weights.safetensors")


def test_one_process_is_the_plain_case():
    assert (distributed.rank(), distributed.world_size(), distributed.is_main()) == (0, 1, True)
    assert distributed.shard(["a", "b", "c"]) == ["a", "b", "c"]
    values = torch.arange(3.0, requires_grad=True)
    total = distributed.all_reduce_sum(values)
    assert not total.requires_grad
    assert total.tolist() == [0, 1, 2]
    distributed.barrier()
    with distributed.main_first():
        pass


def test_global_mean_of_one_process():
    total = torch.tensor(6.0, requires_grad=True)
    mean = distributed.global_mean(total, 4)
    mean.backward()
    assert mean.item() == 1.5
    assert total.grad.item() == 0.25


def test_global_mean_of_nothing_is_zero_without_nan_gradient():
    values = torch.tensor([1.0, 2.0], requires_grad=True)
    mean = distributed.global_mean(values[values > 5].sum(), (values > 5).sum())
    mean.backward()
    assert mean.item() == 0
    assert values.grad.tolist() == [0, 0]


def test_global_mean_compiles():
    compiled = torch.compile(distributed.global_mean, fullgraph=True, backend="eager")
    assert compiled(torch.tensor(6.0), torch.tensor(4)).item() == 1.5


def test_global_mean_of_two_ranks_compiles(tmp_path):
    script = tmp_path / "mean.py"
    script.write_text(
        textwrap.dedent(
            """
            import torch

            from c2am import distributed

            mean = torch.compile(distributed.global_mean, fullgraph=True, backend="aot_eager")
            with distributed.session("cpu"):
                rank = distributed.rank()
                result = mean(torch.tensor(6.0 + rank), torch.tensor(3 + rank))
                torch.testing.assert_close(result, torch.tensor(2 * (6.0 + rank) / 7))
            """
        )
    )
    done = torchrun(2, script)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is there")
def test_missing_cuda_is_an_error():
    with pytest.raises(ValueError, match="cuda"), distributed.session("cuda"):
        pass


def test_two_and_three_ranks_train_like_one(tmp_path):
    """A batch of 8 falls on 3 ranks as 2, 3 and 3; pixels fall on them unevenly anyway."""
    words = ("--batch-size", 8, "--accumulate", 1)
    one = train(1, tmp_path / "1", *words)
    for ranks in (2, 3):
        several = train(ranks, tmp_path / str(ranks), *words)
        for name, tensor in one.items():
            torch.testing.assert_close(several[name], tensor, rtol=1e-4, atol=1e-6)


def test_two_ranks_accumulate_like_one(tmp_path):
    words = ("--batch-size", 12, "--accumulate", 3)
    one, two = train(1, tmp_path / "1", *words), train(2, tmp_path / "2", *words)
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("signals", [[], [signal.SIGTERM]])
def test_no_thread_outlives_the_group(tmp_path, signals):
    # One that frees a tensor while Python ends is an abort (torch 2.11).
    script = tmp_path / "ranks.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import os, signal, sys
            from pathlib import Path
            import tiny_training
            from c2am.events import Events

            signals = {list(map(int, signals))}
            Events.log = lambda *_: [os.kill(os.getpid(), number) for number in signals]
            code = 0
            try:
                tiny_training.main()
            except SystemExit as stop:
                code = stop.code
            threads = [(task / "comm").read_text() for task in Path("/proc/self/task").iterdir()]
            left = [name for name in threads if "gloo" in name]
            Path(sys.argv[1], os.environ["RANK"]).write_text(f"{{code}} {{left}}")
            """
        )
    )
    done = torchrun(2, script, tmp_path)
    assert done.returncode == 0, done.stderr
    code = sum(128 + number for number in signals)
    assert [(tmp_path / rank).read_text() for rank in "01"] == [f"{code} []"] * 2


def test_more_ranks_than_images_is_an_error(tmp_path):
    done = torchrun(2, TINY, tmp_path, "--batch-size", 1)
    assert done.returncode != 0
    assert "leaves some of the 2 ranks without an image" in done.stderr


def test_nan_on_one_rank_stops_all(tmp_path):
    done = torchrun(2, TINY, tmp_path, "--nan-at", 5)
    assert done.returncode != 0
    assert "step 6: the loss is not finite" in done.stderr
    assert "image10" in done.stderr


def test_a_failing_rank_ends_the_others(tmp_path):
    began = time.monotonic()
    done = torchrun(2, TINY, tmp_path, "--fail-rank", 1, "--steps", 100000)
    assert done.returncode != 0
    assert time.monotonic() - began < 120
    assert not (tmp_path / "weights.safetensors").exists()


def test_collectives_of_three_ranks(tmp_path):
    script = tmp_path / "ranks.py"
    script.write_text(
        textwrap.dedent(
            """
            import sys, time
            from pathlib import Path
            import torch
            from c2am import distributed as d

            folder = Path(sys.argv[1])
            with d.session("cpu") as device:
                assert device.type == "cpu" and d.world_size() == 3
                assert d.is_main() == (d.rank() == 0)
                assert d.shard(range(7)) == list(range(d.rank(), 7, 3))
                assert d.all_reduce_sum(torch.tensor([1, d.rank()])).tolist() == [3, 3]
                mean = d.global_mean(torch.tensor(float(d.rank())), 2 * d.rank())
                assert torch.isclose(mean, torch.tensor(d.rank() * 3 / 6))
                with d.main_first():
                    if d.is_main():
                        time.sleep(0.3)
                        (folder / "made").touch()
                    assert (folder / "made").exists()
                d.barrier()
                (folder / f"well-{d.rank()}").touch()
            """
        )
    )
    done = torchrun(3, script, tmp_path)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.glob("well-*")} == {"well-0", "well-1", "well-2"}


def test_sigterm_to_torchrun_saves_and_the_next_run_continues(tmp_path):
    words = ("--steps", 60, "--checkpoint-every", 1000)
    whole = train(1, tmp_path / "whole", *words)
    folder = tmp_path / "cut"
    process = launch(2, TINY, folder, *words, "--slow", 0.1)
    wait_until((folder / "events" / "metrics.jsonl").exists, process)
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert len(list(folder.glob("checkpoint-*.safetensors"))) == 1
    continued = train(2, folder, *words)
    for name, tensor in whole.items():
        torch.testing.assert_close(continued[name], tensor, rtol=1e-4, atol=1e-5)


def wait_until(true: Callable[[], bool], process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while not true():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_two_ranks_go_through_the_pipeline_once(tmp_path):
    script = tmp_path / "ranks.py"
    script.write_text(
        textwrap.dedent(
            """
            import os, sys
            from pathlib import Path
            import pytest
            from test_pipeline import ALL, Run
            from c2am import distributed

            def touch(context):
                (context.folder / f"rank-{distributed.rank()}").touch()

            folder = Path(sys.argv[1]) / os.environ["RANK"]
            folder.mkdir()
            run = Run(folder, pytest.MonkeyPatch())
            run.config.workspace = str(Path(sys.argv[1]) / "runs")
            run.actions = {name: touch for name in ALL}
            assert run() == ALL
            """
        )
    )
    done = torchrun(2, script, tmp_path)
    assert done.returncode == 0, done.stderr
    root = tmp_path / "runs" / "run"
    for stage in ("classifier", "irn/c2am", "report"):
        assert {path.name for path in (root / stage).glob("rank-*")} == {"rank-0", "rank-1"}
        assert json.loads((root / stage / "manifest.json").read_text())["ranks"] == 2
    assert done.stdout.count("mIoU (%)") == 1
