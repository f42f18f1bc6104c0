"""Stage `predictions`: the segmenter's masks, with and without dense CRF, and VOC server files.

The logits of all scales are fused by maximum, resized bilinearly to the image, turned into
probabilities (averaged with the mirrored image's on `flip`) and taken the arg-max of. The CRF gets
the probabilities as unaries; it runs in threads while the network goes on.

The val list is also predicted with the image's labels given, as seeds and pseudo masks are made.
"""

import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from c2am import distributed, ops, precision
from c2am.config import CrfConfig, PipelineConfig
from c2am.data import Dataset
from c2am.data.loader import InferenceBatch
from c2am.models import Classifier, fold_batch_norms
from c2am.stages.context import StageContext
from c2am.stages.crf import crf_device, crf_plan, infer
from c2am.stages.lists import own, pending_batches
from c2am.stages.loaders import inference_batches
from c2am.stages.multi_scale import trained_classifier
from c2am.stages.parallel import Workers
from c2am.stages.scoring import score_masks
from c2am.stages.segmenter import trained_segmenter
from c2am.workspace import atomic, write_mask

SERVER_FOLDER = "results/VOC2012/Segmentation/comp6_test_cls"
_DEEPLAB_MEAN = (122.675, 116.669, 104.008)
"""RGB mean of the Caffe networks of DeepLab, which the release subtracts."""


def check(config: PipelineConfig, dataset: Dataset) -> None:
    """Raise `ValueError` if masks of two lists would share a folder."""
    folders: set[str] = set()
    for split in _lists(config):
        for folder in (split + kind for kind in _kinds(config, split)):
            if folder in folders:
                raise ValueError(
                    f"data.val_list = {config.data.val_list!r} and data.test_list = "
                    f"{config.data.test_list!r}: the masks of both would go to {folder!r}"
                )
            folders.add(folder)


def run(context: StageContext) -> dict:
    """Predict the val list, score it, and predict the test list if there is one.

    Masks go to `<split>/<id>.png` and `<split>_crf/<id>.png`, those of the val list with given
    labels to `<split>_given/<id>.png`. Those of the test list, refined if there is a CRF, are
    copied to `results/VOC2012/Segmentation/comp6_test_cls` for the server.
    """
    data = context.config.data
    for split in _lists(context.config):
        predict_list(context, split)
    distributed.barrier()
    if data.test_list is not None:
        copy_to_server_folder(context, data.test_list)
    kinds = _kinds(context.config, data.val_list)
    scored = {f"val{kind}": _score(context, data.val_list + kind) for kind in kinds}
    return {name: score for name, score in scored.items() if score is not None}


@torch.inference_mode()
def predict_list(context: StageContext, split: str) -> None:
    """Masks of this rank's images of a list that are not there yet."""
    batch_size, ids = context.config.predictions.batch_size, context.dataset.ids(split)
    todo = pending_batches(
        context, ids, lambda image_id: not _missing(context, split, image_id), batch_size
    )
    if not todo:
        return
    predictor = Predictor(context)
    with Workers() as workers:
        for batch in predictor.batches(todo, f"{context.name}: {split}"):
            for image_id, image, probability in zip(
                batch.ids, batch.images, predictor.probabilities(batch), strict=True
            ):
                workers.submit(write_masks, context, split, image_id, image, probability)


class Predictor:
    """A method's trained segmenter, with the baseline classifier where that has a say.

    With `predictions.classifier_weight` w the foreground's probability is shared out among the
    classes in proportion to s_z p_z^w, where s_z is the segmenter's share of class z in a pixel and
    p_z the classifier's probability that the image shows it.
    """

    def __init__(self, context: StageContext) -> None:
        self._context, self._config = context, context.config
        self._net = trained_segmenter(context)
        fold_batch_norms(self._net.backbone)
        self._classifier = None
        if self._config.predictions.classifier_weight > 0:
            weights = context.shared("classifier") / "weights.safetensors"
            self._classifier = trained_classifier(context, weights)

    def batches(self, ids: list[str], description: str) -> Iterator[InferenceBatch]:
        """Images for `probabilities`, with a progress bar."""
        return inference_batches(
            self._context,
            ids,
            self._net.backbone.normalization,
            description,
            scales=(1.0,) if self._classifier is None else (1.0, *self._config.cam.scales),
            flip=self._config.predictions.flip,
            batch_size=self._config.predictions.batch_size,
        )

    def probabilities(self, batch: InferenceBatch) -> Tensor:
        """(B, Z + 1, H, W) float32 class probabilities at the size of the images."""
        views = batch.views[0]
        with precision.autocast(self._context.device, self._config.segmenter.precision):
            logits = self._net.fused(views.flatten(0, 1), self._config.segmenter.scales)
        logits = F.interpolate(logits.float(), batch.size, mode="bilinear", align_corners=False)
        logits = logits.unflatten(0, views.shape[:2])
        result = logits.softmax(2)
        if self._classifier is not None:
            weight = self._config.predictions.classifier_weight
            present = self._log_presence(self._classifier, batch.views[1:])[:, None, :, None, None]
            shares = (logits[:, :, 1:] + weight * present).softmax(2)
            background = result[:, :, :1]
            result = torch.cat([background, (1 - background) * shares], 2)
        if views.shape[1] == 1:
            return result[:, 0]
        return (result[:, 0] + result[:, 1].flip(-1)) / 2

    def _log_presence(self, classifier: Classifier, views: list[Tensor]) -> Tensor:
        """(B, Z) logarithms of the classifier's probabilities that the images show the classes."""
        own, its = self._net.backbone.normalization, classifier.backbone.normalization
        with precision.autocast(self._context.device, self._config.classifier.precision):
            logits = [classifier(own.convert(v, its).flatten(0, 1)).logits for v in views]
        each = [of_scale.float().unflatten(0, views[0].shape[:2]) for of_scale in logits]
        present = F.logsigmoid(torch.cat(each, 1))
        return present.logsumexp(1) - math.log(present.shape[1])


def write_masks(
    context: StageContext, split: str, image_id: str, image: Tensor, probability: Tensor
) -> None:
    """The masks of an image that are not there yet.

    Args:
        context: of the stage.
        split: name of the list.
        image_id: name of the image.
        image: (H, W, 3) uint8.
        probability: (Z + 1, H, W) float32.
    """
    config = context.config.predictions
    for kind in _missing(context, split, image_id):
        if kind == "_given":
            mask = labels_given(probability, context.dataset.labels(image_id))
        elif kind == "_crf":
            assert config.crf is not None
            device = crf_device(context.device)
            guide = image if config.crf_image == "true" else mean_subtracted(image)
            mask = refine(guide.to(device), probability.to(device), config.crf)
        else:
            mask = probability.max(0).indices  # faster than argmax
        _write(_mask_path(context, split + kind, image_id), mask)


def labels_given(probability: Tensor, labels: np.ndarray) -> Tensor:
    """The mask with the image's labels given, as seeds and pseudo masks are made with them.

    As with `predictions.classifier_weight` the background keeps its probability, and the
    foreground's is shared out: in the proportions of `probability`, among the classes shown alone.

    Args:
        probability: (Z + 1, H, W) float32 class probabilities.
        labels: (Z,) bool, the classes that the image shows.

    Returns:
        (H, W) int64 class indices; 0 everywhere if the image shows none.
    """
    shown = torch.from_numpy(labels).nonzero()[:, 0].to(probability.device) + 1
    if len(shown) == 0:
        return torch.zeros_like(probability[0], dtype=torch.int64)
    own = probability[shown]
    most, which = own.max(0)
    foreground = (1 - probability[0]) * most / own.sum(0)
    return torch.where(foreground > probability[0], shown[which], 0)


def refine(image: Tensor, probability: Tensor, config: CrfConfig) -> Tensor:
    """(H, W) uint8 labels of the CRF, for `image (H,W,3)` and `probability (N,H,W)`."""
    unary = ops.unary_from_softmax(probability)
    return infer(crf_plan(image, config), unary, config)


def mean_subtracted(image: Tensor) -> Tensor:
    """`image (H, W, 3)` uint8 minus DeepLab's mean, cast to bytes that wrap around.

    The release hands this to the CRF by mistake: 100 becomes 100 - 122.675 = -22 = 234.
    """
    difference = image.float() - image.new_tensor(_DEEPLAB_MEAN, dtype=torch.float32)
    return difference.to(torch.int32).to(torch.uint8)


def copy_to_server_folder(context: StageContext, split: str) -> None:
    """Copy this rank's test masks to the folder that the VOC server wants, as a tar or zip."""
    source = f"{split}_crf" if context.config.predictions.crf is not None else split
    for image_id in own(context.dataset, context.dataset.ids(split)):
        target = context.folder / SERVER_FOLDER / f"{image_id}.png"
        with atomic(target) as temporary:
            shutil.copyfile(_mask_path(context, source, image_id), temporary)


def _lists(config: PipelineConfig) -> list[str]:
    return list(dict.fromkeys(filter(None, (config.data.val_list, config.data.test_list))))


def _missing(context: StageContext, split: str, image_id: str) -> list[str]:
    kinds = _kinds(context.config, split)
    return [kind for kind in kinds if not _mask_path(context, split + kind, image_id).exists()]


def _kinds(config: PipelineConfig, split: str) -> list[str]:
    """What is added to a list's name for each of its folders of masks."""
    given = ["_given"] if split == config.data.val_list else []
    return ["", *given, *([] if config.predictions.crf is None else ["_crf"])]


def _score(context: StageContext, folder: str) -> dict | None:
    return score_masks(
        context,
        context.config.data.val_list,
        lambda image_id: _mask_path(context, folder, image_id),
        f"{context.name}: score {folder}",
    )


def _mask_path(context: StageContext, folder: str, image_id: str) -> Path:
    return context.folder / folder / f"{image_id}.png"


def _write(path: Path, mask: Tensor) -> None:
    write_mask(path, mask.to(torch.uint8).cpu().numpy())
