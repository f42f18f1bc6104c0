"""Per-image stages on several ranks: each file is made once, and is that of one process."""

import json
import multiprocessing
import os
import socket
from contextlib import closing
from pathlib import Path

import pytest
import torch

from c2am import distributed, workspace
from c2am.config import PipelineConfig
from c2am.data import open_dataset
from c2am.events import Events
from c2am.methods import build_method
from c2am.models import build_classifier, build_irn, build_segmenter
from c2am.parsing import load_config
from c2am.stages import cam, global_cam, irn_labels, predictions, pseudo_masks
from c2am.stages.context import StageContext

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["c2am.trainer", "c2am.pipeline", "c2am.stages.predictions"])
STAGES = (global_cam, cam, irn_labels, pseudo_masks, predictions)
SHARED = ("classifier", "global_cam")


STREAMED = ["--pseudo_masks.threshold", "0.2", "--data.score_list", "val"]
STREAMED += ["--irn_labels.stream", "true"]


def configured(folder: Path, options: list[str]) -> PipelineConfig:
    recipe = Path(__file__).parent.parent / "tiny.yaml"
    few = [f"--data.synthetic.{name}" for name in ("train_images=5", "val_images=4")]
    return load_config(recipe, ["--workspace", str(folder), "--methods", "[cam]", *few, *options])


def write_networks(config: PipelineConfig, run: workspace.Workspace, classes: int) -> None:
    """The random weights of the trained stages, as if they were done."""
    torch.manual_seed(0)
    nets = {
        "classifier": build_classifier(config.classifier, classes),
        "irn": build_irn(config.irn),
        "segmenter": build_segmenter(config.segmenter, classes),
    }
    for stage, net in nets.items():
        folder = run.folder(stage, None if stage in SHARED else "cam")
        workspace.write_tensors(folder / "weights.safetensors", net.state_dict())


def work(config: PipelineConfig, root: Path, rank: int, ranks: int, port: int) -> None:
    """The stages on one rank; `rank-<r>.json` says what it wrote and the metrics it got."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(ranks), "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    written, atomic = [], workspace.atomic
    workspace.atomic = lambda path: written.append(str(path)) or atomic(path)  # type: ignore
    run = workspace.Workspace(root)
    dataset = open_dataset(config.data, root.parent / "data")
    metrics = {}
    with distributed.session("cpu", timeout=100.0) as device:
        for module in STAGES:
            name = module.__name__.rpartition(".")[2]
            method = None if name in SHARED else build_method("cam", config.front_door)
            folder = run.folder(name, method and method.name)
            with Events(root / "events", name) as events:
                context = StageContext(config, run, dataset, device, method, folder, events)
                metrics[name] = module.run(context)
                distributed.barrier()
    (root / f"rank-{rank}.json").write_text(json.dumps([written, metrics]))


def start(config: PipelineConfig, root: Path, ranks: int) -> list:
    with closing(socket.socket()) as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
    started = [
        FORKS.Process(target=work, args=(config, root, r, ranks, port)) for r in range(ranks)
    ]
    for process in started:
        process.start()
    return started


def finish(processes: list, root: Path) -> tuple[list[list[str]], dict]:
    """What each rank wrote, and the metrics, which are the same on all."""
    for process in processes:
        process.join(200)
        assert process.exitcode == 0
    told = [json.loads((root / f"rank-{r}.json").read_text()) for r in range(len(processes))]
    assert all(metrics == told[0][1] for _, metrics in told)
    return [[str(Path(name).relative_to(root)) for name in names] for names, _ in told], told[0][1]


def contents(root: Path) -> dict[str, bytes]:
    found = [*root.rglob("*.png"), *root.rglob("*.safetensors")]
    return {str(path.relative_to(root)): path.read_bytes() for path in found}


@pytest.mark.timeout(240)
@pytest.mark.parametrize(("options", "others"), [([], (2, 3)), (STREAMED, (2,))])
def test_several_ranks_make_the_files_of_one_each_once(tmp_path, options, others):
    """5 and 4 images of various sizes, which neither two nor three ranks share evenly.

    With the threshold found by a sweep; or given, without a score of the training list, so that
    its masks are made at once, and its labels in the pass of `cam`.
    """
    config = configured(tmp_path, options)
    roots = {ranks: tmp_path / str(ranks) for ranks in (1, *others)}
    dataset = open_dataset(config.data, tmp_path / "data")
    for root in roots.values():
        write_networks(config, workspace.Workspace(root), len(dataset.classes))
    started = {ranks: start(config, root, ranks) for ranks, root in roots.items()}
    results = {ranks: finish(started[ranks], root) for ranks, root in roots.items()}
    whole, metrics = contents(roots[1]), results[1][1]
    for ranks in others:
        written, own = results[ranks]
        assert contents(roots[ranks]) == whole
        made = [name for names in written for name in names if name in whole]
        assert sorted(made) == sorted(name for name in whole if "weights" not in name)
        assert all(any(name.endswith(".png") for name in names) for names in written)
        assert own == metrics
