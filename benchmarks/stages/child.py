"""One provider of a stage in a process of its own; prints one JSON line."""

import argparse
import contextlib
import json
from pathlib import Path
from typing import Any, cast

import torch
from torch._dynamo.utils import compilation_time_metrics

from benchmarks.stages import PER_IMAGE
from benchmarks.stages.providers import providers
from benchmarks.stages.recorder import EnoughError, Recorder
from c2am import distributed
from c2am.data import open_dataset
from c2am.methods import build_method
from c2am.parsing import load_config
from c2am.provenance import peak_memory
from c2am.stages.context import StageContext
from c2am.workspace import Workspace

METHOD = "cam"


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
    recorder = Recorder(0 if per_image else section.batch_size, options.marks)
    with distributed.session(config.device) as device:
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
        if distributed.is_main():
            print(json.dumps(_result(recorder, device)))


def _result(recorder: Recorder, device: torch.device) -> dict[str, Any]:
    return {
        "rates": recorder.rates(),
        "startup_s": recorder.startup(),
        "compile_s": sum(compilation_time_metrics.get("_compile.compile_inner", [])),
        "peak_memory": peak_memory(device),
        "gflop_per_image": recorder.gflop_per_image,
        "matmul_gflop_s": recorder.matmul_gflop_s,
    }


if __name__ == "__main__":
    main()
