"""Causal CAM: front-door adjustment of the logits by the Global CAM."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from c2am import ops
from c2am.methods.method import Artefacts
from c2am.methods.method import Method as _Method
from c2am.models.classifier import Classifier

if TYPE_CHECKING:
    from c2am.data.loader import TrainBatch


class Method(_Method):
    """Classification of s_z = pool(gamma * P(z|x) * GlobalCAM_z), Eq. 3 of the paper.

    The Global CAM is that of the baseline and is never updated.
    """

    needs = frozenset({"global_cam"})

    def prepare(self, net: Classifier, artefacts: Artefacts, round: int) -> None:
        if artefacts.global_cam is None:
            raise ValueError("method c2am needs the Global CAM: run the stage global_cam first")
        self._global_cam = artefacts.global_cam.to(net.weight.device)

    def loss(self, net: Classifier, batch: TrainBatch, progress: float) -> dict[str, Tensor]:
        loss = ops.front_door_loss(
            self.outputs(net, batch).logits.float(),
            batch.labels,
            self._global_cam,
            pooling=self.config.pooling,
            gamma=self.config.gamma,
            probability=self.config.probability,
        )
        return {"classification": loss}
