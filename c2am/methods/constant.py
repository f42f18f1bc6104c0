"""The constant experiment: every logit times one constant, no Global CAM."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from c2am.methods.method import Method as _Method
from c2am.methods.method import classification_loss
from c2am.models.classifier import Classifier

if TYPE_CHECKING:
    from c2am.data.loader import TrainBatch


class Method(_Method):
    """`c2am` with mean pooling and a constant map; `front_door.constant` is the factor."""

    def loss(self, net: Classifier, batch: TrainBatch, progress: float) -> dict[str, Tensor]:
        logits = self.outputs(net, batch).logits
        return {"classification": classification_loss(logits * self.config.constant, batch.labels)}
