"""A run's own configuration: stored with it, opened again by its folder, shown to others."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from c2am.config import PipelineConfig
from c2am.parsing import dump_config, load_config
from c2am.workspace import Workspace, atomic, is_run


def store_config(config: PipelineConfig, workspace: Workspace) -> None:
    """Write the configuration into the run, with the paths of data and workspace absolute.

    So it is a recipe that gives the same run in any working directory. Files of weights stay as
    they were given: their names belong to what a stage is known by.
    """
    stored = _with_folders(config, lambda path: str(Path(path).absolute()))
    with atomic(workspace.config_path) as temporary:
        temporary.write_text(dump_config(stored), encoding="utf-8")


def shown_config(config: PipelineConfig) -> str:
    """The configuration as YAML for others to read: of every path only its last part.

    It is the same for the configuration as it was given and as it was stored.
    """
    weights: dict[str, Any] = {
        name: replace(stage, weights=_last_part(stage.weights))
        for name, stage in vars(config).items()
        if "/" in getattr(stage, "weights", "")
    }
    return dump_config(replace(_with_folders(config, _last_part), **weights))


def open_run(run: Path) -> tuple[PipelineConfig, Workspace]:
    """The configuration that a run was made with, and its files.

    Raises:
        ValueError: the folder is no run.
    """
    workspace = Workspace(run)
    if not is_run(run):
        raise ValueError(f"{run}: not a run (it has no config.yaml)")
    return load_config(workspace.config_path), workspace


def _with_folders(config: PipelineConfig, change: Callable[[str], str]) -> PipelineConfig:
    """The configuration with its paths of data and workspace changed, those that are set."""
    paths = ((name, getattr(config.data, name)) for name in ("root", "sbd", "labels"))
    changed: dict[str, Any] = {name: change(path) for name, path in paths if path}
    data = replace(config.data, **changed)
    return replace(config, data=data, workspace=change(config.workspace))


def _last_part(path: str) -> str:
    return f".../{os.path.basename(os.path.abspath(path))}"
