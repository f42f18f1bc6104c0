"""The stages in order: which needs which, what is skipped, what is continued, what is recorded.

A stage's fingerprint covers everything that its files depend on: its sections of the
configuration, the data, the seed, and the fingerprints of the stages whose files it reads. A stage
whose manifest carries the same fingerprint is skipped; one that was begun under it is continued;
files of another configuration are removed before it starts.
"""

import importlib
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from rich.console import Console

from c2am import distributed
from c2am.config import PipelineConfig
from c2am.data import Dataset, open_dataset
from c2am.events import Events
from c2am.methods import Method, build_method
from c2am.parsing import dump_config
from c2am.progress import console
from c2am.provenance import (
    device_name,
    fingerprint,
    images_fingerprint,
    masks_fingerprint,
    peak_memory,
    reset_peak_memory,
    section,
    versions,
)
from c2am.results import cost_table, duration, score_table
from c2am.stages.context import StageContext
from c2am.workspace import Workspace, atomic


@dataclass(frozen=True)
class Stage:
    """A row of the table of stages."""

    name: str
    needs: tuple[str, ...]
    """Stages whose files it reads."""
    sections: tuple[str, ...]
    """Sections of the configuration that its files depend on."""
    scored: bool = False
    """Its metrics are scores: when masks or the section `evaluation` change, it is scored again."""
    per_method: bool = True
    always: bool = False
    """It is cheap and shows whatever there is: never skipped, never refused."""


STAGES = (
    Stage("classifier", (), ("classifier",), per_method=False),
    Stage("global_cam", ("classifier",), ("global_cam", "cam"), per_method=False),
    Stage("front_door", ("classifier", "global_cam"), ("front_door",)),
    Stage("cam", ("front_door",), ("cam",), scored=True),
    Stage("irn_labels", ("cam",), ("irn_labels",)),
    Stage("irn", ("irn_labels",), ("irn",)),
    Stage("pseudo_masks", ("cam", "irn"), ("pseudo_masks",), scored=True),
    Stage("segmenter", ("pseudo_masks",), ("segmenter",)),
    Stage("predictions", ("segmenter",), ("predictions",), scored=True),
    Stage("report", (), ("report",), per_method=False, always=True),
)
STAGE_NAMES = tuple(stage.name for stage in STAGES)


@dataclass(frozen=True)
class Job:
    """A stage, of one method unless all share it."""

    stage: Stage
    method: str | None

    @property
    def key(self) -> tuple[str, str | None]:
        """Stage and method, as the workspace takes them."""
        return self.stage.name, self.method

    def __str__(self) -> str:
        return f"{self.stage.name}/{self.method}" if self.method else self.stage.name


def run(
    config: PipelineConfig,
    *,
    stages: Sequence[str] | None = None,
    start: str | None = None,
    force: bool = False,
) -> Workspace:
    """Run the pipeline, on all ranks, and print the tables.

    Args:
        config: the run; its folder is `<workspace>/<name>`.
        stages: run these only; all by default.
        start: leave out the stages before this one.
        force: run the chosen stages though they are done.

    Raises:
        ValueError: a stage, method or option is wrong, a needed stage is not done, data are bad.
        WorkspaceError: the folder cannot be written, or another process runs in it.
    """
    chosen = choose_stages(stages, start)
    workspace = Workspace(Path(config.workspace) / config.name)
    with distributed.session(config.device) as device, _locked(workspace):
        if distributed.is_main():
            with atomic(workspace.config_path) as temporary:
                temporary.write_text(dump_config(config), encoding="utf-8")
        with distributed.main_first():  # synthetic data are drawn once
            dataset = open_dataset(config.data, workspace.root / "data")
        pipeline = Pipeline(config, workspace, dataset, device)
        wanted = chosen if stages is not None else chosen - pipeline.unneeded()
        pipeline.check(wanted)
        for job in pipeline.jobs():
            if job.stage.name in wanted:
                pipeline.run_job(job, force)
        pipeline.print_results()
    return workspace


def choose_stages(stages: Sequence[str] | None, start: str | None) -> set[str]:
    """The stages that the options `--stages` and `--from` leave."""
    for name in [*(stages or ()), *([start] if start else ())]:
        if name not in STAGE_NAMES:
            raise ValueError(f"stage {name!r}: expected one of {', '.join(STAGE_NAMES)}")
    first = STAGE_NAMES.index(start) if start else 0
    return set(STAGE_NAMES[first:]).intersection(STAGE_NAMES if stages is None else stages)


def _locked(workspace: Workspace) -> AbstractContextManager[None]:
    # The main rank holds the lock for all; when it cannot, torchrun ends the others.
    return workspace.lock() if distributed.is_main() else nullcontext()


def _module(stage: str) -> ModuleType:
    return importlib.import_module(f"c2am.stages.{stage}")


class Pipeline:
    """The stages of one run."""

    def __init__(
        self, config: PipelineConfig, workspace: Workspace, dataset: Dataset, device: torch.device
    ) -> None:
        self.config, self.workspace = config, workspace
        self.dataset, self.device = dataset, device
        self.methods: dict[str, Method] = {
            name: build_method(name, config.front_door) for name in config.methods
        }
        self._known: dict[Job, str] = {}
        lists = [config.data.train_list, config.data.score_list, config.data.val_list]
        self._data = {
            "data": section(config, "data"),
            "images": {name: images_fingerprint(dataset, dataset.ids(name)) for name in lists},
        }
        self._masks = {name: masks_fingerprint(dataset, dataset.ids(name)) for name in lists[1:]}
        test = config.data.test_list
        self._test = images_fingerprint(dataset, dataset.ids(test)) if test else None

    def check(self, wanted: set[str]) -> None:
        """Refuse before the first stage what a later one would: a stage may have a `check`."""
        for name in STAGE_NAMES:
            check = getattr(_module(name), "check", None) if name in wanted else None
            if check is not None:
                check(self.config, self.dataset)

    def jobs(self) -> Iterator[Job]:
        """All stages of all methods, in the order in which they run."""
        for stage in STAGES:
            if not stage.per_method:
                yield Job(stage, None)
                continue
            for name, method in self.methods.items():
                if stage.name != "front_door" or method.trains:
                    yield Job(stage, name)

    def unneeded(self) -> set[str]:
        """Stages that no method of this run asks for."""
        asked = {name for method in self.methods.values() for name in method.needs}
        return {"global_cam"} - asked

    def needs(self, job: Job) -> list[Job]:
        """The jobs whose files `job` reads."""
        found = []
        for name in job.stage.needs:
            for method in self.methods if job.method is None else [job.method]:
                found += self._need(job, name, method)
        return list(dict.fromkeys(found))

    def _need(self, job: Job, name: str, method: str) -> list[Job]:
        stage = STAGES[STAGE_NAMES.index(name)]
        own = self.methods[method]
        if name == "front_door" and not own.trains:
            stage = STAGES[STAGE_NAMES.index(own.starts_from)]
        if job.stage.name == "front_door" and name == "global_cam" and name not in own.needs:
            return []
        return [Job(stage, method if stage.per_method else None)]

    def fingerprint(self, job: Job) -> str:
        """What the files of `job` depend on."""
        if job not in self._known:
            inputs = {str(need): self.fingerprint(need) for need in self.needs(job)}
            self._known[job] = fingerprint(
                self._data
                | {"seed": self.config.seed, "stage": str(job), "inputs": inputs}
                | {"config": {name: section(self.config, name) for name in job.stage.sections}}
                | {"chosen_by": self._scoring(job) if self._chooses(job) else None}
                | {"test": self._test if job.stage.name == "predictions" else None}
            )
        return self._known[job]

    def scoring(self, job: Job) -> str:
        """What the metrics of `job` depend on beside its files."""
        return fingerprint(self._scoring(job))

    def _scoring(self, job: Job) -> dict[str, Any]:
        if not job.stage.scored:
            return {}
        return {"evaluation": section(self.config, "evaluation"), "masks": self._masks}

    def _chooses(self, job: Job) -> bool:
        best = self.config.pseudo_masks.threshold == "best"
        return job.stage.name == "pseudo_masks" and best

    def run_job(self, job: Job, force: bool) -> None:
        """Run `job`, continue it, or skip it; leaves its manifest."""
        manifest = self.workspace.read_manifest(*job.key) or {}
        running = self.workspace.read_running(*job.key) or {}
        made = manifest.get("fingerprint") == self.fingerprint(job)
        scored = manifest.get("scoring") == self.scoring(job)
        if made and scored and not (force or job.stage.always):
            self._say(f"[dim]{job}: done before")
            return
        self._check_needs(job)
        spent = 0.0
        begun = running.get("fingerprint") == self.fingerprint(job)
        keep = (made or begun) and not (force or job.stage.always)
        if keep:
            spent = self._spent(job, running) if begun else manifest["wall_time"]
        self._say(f"[bold]{job}[/bold]: " + ("continues" if keep else "runs"))
        distributed.barrier()  # all ranks have read what the main one changes now
        if distributed.is_main():
            note = {"fingerprint": self.fingerprint(job), "started": time.time(), "spent": spent}
            self.workspace.begin(*job.key, note, clear=not keep)
        distributed.barrier()
        self._run(job, spent)

    def _spent(self, job: Job, running: dict[str, Any]) -> float:
        """Seconds that earlier attempts worked, up to the last file each of them left."""
        files = self.workspace.folder(*job.key).rglob("*")
        last = max(path.stat().st_mtime for path in files)
        return running["spent"] + max(0.0, last - running["started"])

    def _run(self, job: Job, spent: float) -> None:
        module = _module(job.stage.name)
        reset_peak_memory(self.device)
        # Each stage draws from its own seed: whether an earlier one was skipped does not matter.
        torch.manual_seed(int(fingerprint([self.config.seed, str(job)])[:15], 16))
        began = time.perf_counter()
        with Events(self.workspace.events, str(job)) as events:
            metrics = module.run(self._context(job, events))
        seconds = spent + time.perf_counter() - began
        distributed.barrier()
        if distributed.is_main():
            self.workspace.write_manifest(*job.key, self._manifest(job, metrics, seconds))
        distributed.barrier()
        self._say(f"[bold]{job}[/bold]: done in {duration(seconds)}")

    def _context(self, job: Job, events: Events) -> StageContext:
        return StageContext(
            config=self.config,
            workspace=self.workspace,
            dataset=self.dataset,
            device=self.device,
            method=build_method(job.method, self.config.front_door) if job.method else None,
            folder=self.workspace.folder(*job.key),
            events=events,
        )

    def _manifest(self, job: Job, metrics: dict, seconds: float) -> dict[str, Any]:
        sections = job.stage.sections + (("evaluation",) if job.stage.scored else ())
        return {
            "fingerprint": self.fingerprint(job),
            "scoring": self.scoring(job),
            "inputs": {str(need): self.fingerprint(need) for need in self.needs(job)},
            "config": {name: section(self.config, name) for name in sections},
            "seed": self.config.seed,
            "versions": versions(),
            "device": device_name(self.device),
            "ranks": distributed.world_size(),
            "wall_time": round(seconds, 3),
            "peak_memory": peak_memory(self.device),
            "metrics": metrics,
        }

    def _check_needs(self, job: Job) -> None:
        for need in self.needs(job):
            manifest = self.workspace.read_manifest(*need.key)
            if manifest is None or manifest.get("fingerprint") != self.fingerprint(need):
                state = "is not done" if manifest is None else "was done with other settings"
                raise ValueError(
                    f"{job} needs {need}, which {state}: leave out --stages and --from, or add "
                    f"{need.stage.name} to them"
                )

    def print_results(self) -> None:
        """The scores and costs so far, and where the report is."""
        if not distributed.is_main():
            return
        output = Console()
        output.print(score_table(self.workspace, self.methods))
        output.print(cost_table(self.workspace, [job.key for job in self.jobs()]))
        report = self.workspace.folder("report") / "index.html"
        if report.exists():
            output.print(f"report: {report}", soft_wrap=True, highlight=False)

    def _say(self, line: str) -> None:
        if distributed.is_main():
            console.print(line, highlight=False)
