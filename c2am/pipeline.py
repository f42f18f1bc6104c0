"""Runs the stages in order: what is skipped, what is continued, what is recorded.

A stage whose manifest carries the fingerprint of its job (see `jobs.py`) is skipped; one that was
begun under it, or that has another list of images to work through, is continued; files of another
configuration are removed before it starts.
"""

import importlib
import secrets
import socket
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from rich.console import Console

from c2am import distributed
from c2am.config import PipelineConfig
from c2am.data import Dataset, open_dataset
from c2am.events import Events
from c2am.jobs import STAGE_NAMES, Job, Jobs
from c2am.methods import build_method
from c2am.progress import console
from c2am.provenance import (
    device_name,
    fingerprint,
    peak_memory,
    reset_peak_memory,
    section,
    versions,
)
from c2am.results import cost_table, score_table
from c2am.runs import store_config
from c2am.stages.context import StageContext
from c2am.viz.summary import duration
from c2am.workspace import TEMPORARY, Workspace


def run(
    config: PipelineConfig,
    *,
    stages: Sequence[str] | None = None,
    start: str | None = None,
    force: bool = False,
    profile: int = 0,
) -> Workspace:
    """Run the pipeline, on all ranks, and print the tables.

    Args:
        config: the run; its folder is `<workspace>/<name>`.
        stages: run these only; all by default.
        start: leave out the stages before this one.
        force: run the chosen stages though they are done.
        profile: steps of each training of which a trace is written.

    Raises:
        ValueError: a stage, method or option is wrong, a needed stage is not done, data are bad.
        WorkspaceError: the folder cannot be written, or another process runs in it.
    """
    chosen = choose_stages(stages, start)
    workspace = Workspace(Path(config.workspace) / config.name)
    with distributed.session(config.device, config.timeout) as device, _locked(workspace):
        check_shared(workspace.root, device)
        with distributed.main_first():  # synthetic data are drawn once
            dataset = open_dataset(config.data, workspace.root / "data")
        pipeline = Pipeline(config, workspace, dataset, device, profile)
        wanted = chosen if stages is not None else chosen - pipeline.jobs.unneeded()
        pipeline.check(wanted, force)
        if distributed.is_main():
            store_config(config, workspace)
        for job in pipeline.jobs:
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


def check_shared(root: Path, device: torch.device) -> None:
    """Refuse, on a rank that does not see what the main rank writes, to begin.

    Raises:
        ValueError: the run's folder is not on a file system that all hosts share.
    """
    if distributed.world_size() == 1:
        return
    # A new name: a network file system may remember that an old one was missing.
    path = root / f"{TEMPORARY}{distributed.from_main(secrets.randbits(60), device):x}"
    if distributed.is_main():
        path.touch()
    distributed.barrier()
    seen = path.exists()
    distributed.barrier()
    if distributed.is_main():
        path.unlink()
    if not seen:
        raise ValueError(
            f"{root}: rank {distributed.rank()} on {socket.gethostname()} does not see what the "
            "main rank writes there; all hosts have to share the folder of the run"
        )


def _module(stage: str) -> ModuleType:
    return importlib.import_module(f"c2am.stages.{stage}")


class Pipeline:
    """The stages of one run."""

    def __init__(
        self,
        config: PipelineConfig,
        workspace: Workspace,
        dataset: Dataset,
        device: torch.device,
        profile: int = 0,
    ) -> None:
        self.config, self.workspace = config, workspace
        self.dataset, self.device, self.profile = dataset, device, profile
        self.jobs = Jobs(config, dataset)

    def check(self, wanted: set[str], force: bool) -> None:
        """Refuse before the first stage what a later one would: a stage may have a `check`."""
        to_run = {job.stage.name for job in self.jobs if force or not self._done(job)}
        for name in STAGE_NAMES:
            check = getattr(_module(name), "check", None) if name in wanted & to_run else None
            if check is not None:
                check(self.config, self.dataset)

    def _done(self, job: Job) -> bool:
        manifest = self.workspace.read_manifest(*job.key) or {}
        scored = manifest.get("scoring") == self.jobs.scoring(job)
        return self.jobs.made(job, manifest) and scored and not job.stage.always

    def run_job(self, job: Job, force: bool) -> None:
        """Run `job`, continue it, or skip it; leaves its manifest."""
        if self._done(job) and not force:
            self._say(f"[dim]{job}: done before")
            return
        manifest = self.workspace.read_manifest(*job.key) or {}
        running = self.workspace.read_running(*job.key) or {}
        made, begun = self.jobs.made(job, manifest), self.jobs.made(job, running)
        self._check_needs(job)
        keep = (made or begun) and not (force or job.stage.always)
        if (manifest or running) and not (keep or force):
            self.jobs.check_images(job)
        note = {
            "fingerprint": self.jobs.fingerprint(job),
            "images": self.jobs.images(job),
            "streamed": self.jobs.labels(job) if self.config.irn_labels.stream else None,
            "started": time.time(),
            "spent": 0.0,
        }
        if keep:
            # Files of lists that the stage worked through before are still there, and labels that
            # it made along, in the place of maps.
            before = running if begun else manifest
            note["images"] = before["images"] | note["images"]
            streamed = before.get("streamed")
            # Of a stage that is done all labels or all maps are there: none is streamed now.
            note["streamed"] = streamed if made else streamed or note["streamed"]
            note["spent"] = self._spent(job, running) if begun else manifest["wall_time"]
        self._say(f"[bold]{job}[/bold]: " + ("continues" if keep else "runs"))
        distributed.barrier()  # all ranks have read what the main one changes now
        if distributed.is_main():
            self.workspace.begin(*job.key, note, clear=not keep)
        distributed.barrier()
        self._run(job, note)

    def _spent(self, job: Job, running: dict[str, Any]) -> float:
        """Seconds that earlier attempts worked, up to the last file each of them left."""
        files = self.workspace.folder(*job.key).rglob("*")
        last = max(path.stat().st_mtime for path in files)
        return running["spent"] + max(0.0, last - running["started"])

    def _run(self, job: Job, note: dict[str, Any]) -> None:
        module = _module(job.stage.name)
        reset_peak_memory(self.device)
        # Each stage draws from its own seed: whether an earlier one was skipped does not matter.
        torch.manual_seed(int(fingerprint([self.config.seed, str(job)])[:15], 16))
        began = time.perf_counter()
        with Events(self.workspace.events, str(job)) as events:
            metrics = module.run(self._context(job, events))
        seconds = note["spent"] + time.perf_counter() - began
        distributed.barrier()
        if distributed.is_main():
            manifest = self._manifest(job, note, metrics, seconds)
            self.workspace.write_manifest(*job.key, manifest)
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
            profile=self.profile,
        )

    def _manifest(
        self, job: Job, note: dict[str, Any], metrics: dict, seconds: float
    ) -> dict[str, Any]:
        sections = job.stage.sections + (("evaluation",) if job.stage.scored else ())
        return {
            "fingerprint": self.jobs.fingerprint(job),
            "scoring": self.jobs.scoring(job),
            "images": note["images"],
            "streamed": note["streamed"],
            "lists": {name: getattr(self.config.data, name) for name in job.stage.lists},
            "inputs": {str(need): self.jobs.fingerprint(need) for need in self.jobs.needs(job)},
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
        for need in self.jobs.needs(job):
            manifest = self.workspace.read_manifest(*need.key)
            if manifest is None or not self.jobs.serves(need, manifest, job):
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
        output.print(score_table(self.workspace, self.jobs.methods))
        output.print(cost_table(self.workspace, [job.key for job in self.jobs]))
        report = self.workspace.folder("report") / "index.html"
        if report.exists():
            output.print(f"report: {report}", soft_wrap=True, highlight=False)

    def _say(self, line: str) -> None:
        if distributed.is_main():
            console.print(line, highlight=False)
