"""A run that is there already, opened by its folder."""

from pathlib import Path

from c2am.config import PipelineConfig
from c2am.parsing import load_config
from c2am.workspace import Workspace, is_run


def open_run(run: Path) -> tuple[PipelineConfig, Workspace]:
    """The configuration that a run was made with, and its files.

    Raises:
        ValueError: the folder is no run.
    """
    workspace = Workspace(run)
    if not is_run(run):
        raise ValueError(f"{run}: not a run (it has no config.yaml)")
    return load_config(workspace.config_path), workspace
