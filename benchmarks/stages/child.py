"""One provider of a stage in a process of its own; prints one JSON line."""

import argparse
import contextlib
import json
import math
import os
from pathlib import Path
from typing import Any, cast

import torch
from torch._dynamo.utils import compilation_time_metrics

from benchmarks.stages import PER_IMAGE
from benchmarks.stages.providers import providers
from benchmarks.stages.recorder import EnoughError, Recorder, images_of_window
from c2am import distributed
from c2am.data import open_dataset
from c2am.methods import build_method
from c2am.parsing import load_config
from c2am.provenance import peak_memory
from c2am.stages.context import StageContext
from c2am.stages.parallel import worker_count
from c2am.workspace import Workspace

METHOD = "cam"
_COMPILING = ("_compile.compile_inner", "backward._backward_impl")
"""What torch calls the compilation of a graph; that of its backward follows at the first one."""


def main() -> None:
    """Run a provider until enough is measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stages.child")
    parser.add_argument("recipe", type=Path)
    parser.add_argument("stage")
    parser.add_argument("provider")
    parser.add_argument("folder", help="new folder in the workspace that the files are written to")
    parser.add_argument("--marks", type=int, required=True)
    options = parser.parse_args()
    config = load_config(options.recipe)
    workspace = Workspace(Path(config.workspace) / config.name)
    per_image = options.stage in PER_IMAGE
    section = getattr(config, options.stage)
    if per_image:
        _limit_cores()
    with distributed.session(config.device) as device:
        recorder = Recorder(0 if per_image else section.batch_size, options.marks)
        if per_image:
            recorder.window = images_of_window(options.stage, config, device, worker_count())
        folder = workspace.root / options.folder
        folder.mkdir(parents=True, exist_ok=True)
        context = StageContext(
            config=config,
            workspace=workspace,
            dataset=open_dataset(config.data, workspace.root / "data"),
            device=device,
            method=build_method(METHOD, config.front_door),
            folder=folder,
            events=cast(Any, recorder),
        )
        with contextlib.suppress(EnoughError):
            providers(options.stage, config.classifier.backbone)[options.provider](
                context, recorder
            )
        rates = recorder.rates()
        if per_image:
            rates = of_all_ranks(rates, options.marks, device)
        if distributed.is_main():
            print(json.dumps(_result(recorder, device) | {"rates": rates}))


def _limit_cores() -> None:
    """Leave as many cores to the ranks as they have threads: a per-image stage goes by cores."""
    threads = int(os.environ["OMP_NUM_THREADS"]) * int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def of_all_ranks(rates: list[float], marks: int, device: torch.device) -> list[float]:
    """The sums of the ranks' rates, each of which counts its own images; `marks` at most."""
    padded = torch.tensor(rates + [math.nan] * (marks - len(rates)), dtype=torch.float64)
    total = distributed.all_reduce_sum(padded.to(device)).tolist()
    return [rate for rate in total if math.isfinite(rate)]


def compile_seconds() -> float:
    """What `torch.compile` has taken in this process."""
    return sum(sum(compilation_time_metrics.get(name, [])) for name in _COMPILING)


def _result(recorder: Recorder, device: torch.device) -> dict[str, Any]:
    return {
        "startup_s": recorder.startup(),
        "compile_s": compile_seconds(),
        "peak_memory": peak_memory(device),
        "gflop_per_image": recorder.gflop_per_image,
        "matmul_gflop_s": recorder.matmul_gflop_s,
    }


if __name__ == "__main__":
    main()
