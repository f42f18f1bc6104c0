"""Stage `front_door`: a method's fine-tuning of the baseline classifier."""

from torch import Tensor

from c2am.data.loader import TrainBatch
from c2am.methods import Artefacts, Method
from c2am.models import Classifier, build_classifier, load_weights
from c2am.stages.classifier import image_mean
from c2am.stages.context import StageContext
from c2am.stages.loaders import train_loader
from c2am.stages.multi_scale import untrained_classifier
from c2am.trainer import train
from c2am.workspace import read_tensors


class FrontDoorTask:
    """Trains a classifier with the loss of a method."""

    def __init__(self, net: Classifier, method: Method, attached: list[dict]) -> None:
        self.net = net
        self.method = method
        self.attached = attached

    def parameter_groups(self) -> list[dict]:
        """Those of the classifier, and those the method attached."""
        return self.net.parameter_groups(self.method.config) + self.attached

    def loss(self, batch: TrainBatch, progress: float) -> dict[str, Tensor]:
        """The terms of the method."""
        terms = self.method.loss(self.net, batch, progress)
        return {name: image_mean(term, batch) for name, term in terms.items()}

    def statistics(self) -> dict[str, Tensor]:
        """The method's numbers of its last batch, for the log."""
        return self.method.statistics

    def after_step(self, batch: TrainBatch, progress: float) -> None:
        """The method's own bookkeeping."""
        self.method.after_step(self.net, batch, progress)


def run(context: StageContext) -> dict:
    """Train every round of the method; the weights of the last are the stage's."""
    method = context.method
    if method is None or not method.trains:
        raise ValueError(f"stage {context.name}: the method trains nothing")
    net = starting_classifier(context, method)
    attached = method.attach(net)
    net.to(context.device)
    metrics: dict = {}
    for number in range(method.rounds):
        metrics = train_round(context, method, net, attached, number)
    return metrics


def starting_classifier(context: StageContext, method: Method) -> Classifier:
    """The classifier that training starts from: a stage's, or the pretrained one."""
    if method.starts_from == "imagenet":
        return build_classifier(context.config.classifier, len(context.dataset.classes))
    net = untrained_classifier(context)
    load_weights(net, context.shared(method.starts_from) / "weights.safetensors")
    return net


def train_round(
    context: StageContext, method: Method, net: Classifier, attached: list[dict], number: int
) -> dict:
    """One round of preparing and training, in a folder of its own unless it is the last."""
    config = context.config.front_door
    last = number == method.rounds - 1
    method.prepare(net, artefacts(context, method), number)
    return train(
        FrontDoorTask(net, method, attached),
        train_loader(context, config, net.backbone.normalization),
        config,
        folder=context.folder if last else context.folder / f"round-{number}",
        events=context.events,
        device=context.device,
        profile=context.profile,
    )


def artefacts(context: StageContext, method: Method) -> Artefacts:
    """What the method asks for in `needs`."""
    if "global_cam" not in method.needs:
        return Artefacts()
    tensors = read_tensors(context.shared("global_cam") / "global_cam.safetensors")
    return Artefacts(global_cam=tensors["global_cam"].to(context.device))
