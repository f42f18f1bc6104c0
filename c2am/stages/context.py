"""What a stage gets to know: configuration, folders, data, device, method."""

from dataclasses import dataclass
from pathlib import Path

import torch

from c2am.config import PipelineConfig
from c2am.data.dataset import Dataset
from c2am.events import Events
from c2am.methods.method import Method
from c2am.workspace import Workspace


@dataclass
class StageContext:
    """The one argument of `run(context)` of every stage.

    A stage writes into `folder` alone and reads the folders of the stages it needs.
    """

    config: PipelineConfig
    workspace: Workspace
    dataset: Dataset
    device: torch.device
    method: Method | None
    """None in the stages that all methods share."""
    folder: Path
    """Folder of this stage (and method)."""
    events: Events
    profile: int = 0
    """Steps of a training of which a trace is written."""

    @property
    def name(self) -> str:
        """`<stage>` or `<stage>/<method>`, for logs and progress bars."""
        return self.folder.relative_to(self.workspace.root).as_posix()

    def shared(self, stage: str) -> Path:
        """Folder of a stage that all methods share."""
        return self.workspace.folder(stage)

    def own(self, stage: str) -> Path:
        """Folder of another stage of the same method."""
        return self.workspace.folder(stage, self._method().name)

    def classifier_weights(self) -> Path:
        """Weights that the class maps of this method come from.

        Those of its `front_door`, or those of the baseline for a method that trains none (`cam`).
        """
        folder = self.own("front_door") if self._method().trains else self.shared("classifier")
        return folder / "weights.safetensors"

    def _method(self) -> Method:
        if self.method is None:
            raise ValueError(f"stage {self.name} belongs to no method")
        return self.method
