"""A run's own configuration: stored with it, and opened again by its folder."""

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
    paths = ((name, getattr(config.data, name)) for name in ("root", "sbd", "labels"))
    absolute: dict[str, Any] = {name: _absolute(path) for name, path in paths if path}
    data = replace(config.data, **absolute)
    config = replace(config, data=data, workspace=_absolute(config.workspace))
    with atomic(workspace.config_path) as temporary:
        temporary.write_text(dump_config(config), encoding="utf-8")


def open_run(run: Path) -> tuple[PipelineConfig, Workspace]:
    """The configuration that a run was made with, and its files.

    Raises:
        ValueError: the folder is no run.
    """
    workspace = Workspace(run)
    if not is_run(run):
        raise ValueError(f"{run}: not a run (it has no config.yaml)")
    return load_config(workspace.config_path), workspace


def _absolute(path: str) -> str:
    return str(Path(path).absolute())
