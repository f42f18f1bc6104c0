"""Control: the baseline trained on for as many steps as the others, with its own loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from c2am.methods.method import Method as _Method
from c2am.methods.method import classification_loss
from c2am.models.classifier import Classifier

if TYPE_CHECKING:
    from c2am.data.loader import TrainBatch


class Method(_Method):
    """Shows how much of a method's gain is longer training alone."""

    def loss(self, net: Classifier, batch: TrainBatch, progress: float) -> dict[str, Tensor]:
        logits = self.outputs(net, batch).logits
        return {"classification": classification_loss(logits, batch.labels)}
