"""Masks of any folder of images with the trained segmenter of a run."""

import dataclasses
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from c2am import distributed
from c2am.config import CrfConfig, PipelineConfig, PredictionsConfig
from c2am.data.dataset import DataError, validate_id
from c2am.data.images import EXTENSIONS, image_size
from c2am.events import Events
from c2am.methods import build_method
from c2am.models import read_state_dict
from c2am.runs import open_run
from c2am.stages.context import StageContext
from c2am.stages.crf import crf_device
from c2am.stages.parallel import Workers
from c2am.stages.predictions import Predictor, mean_subtracted, refine
from c2am.workspace import Workspace, write_mask

_ASPP = "aspp.0.weight"  # (Z + 1, C, 3, 3)


class ImageFolder:
    """A dataset of the images right in a folder, of which nothing is known.

    `classes` are only counted: their names are not needed to predict.
    """

    def __init__(self, folder: Path, num_classes: int) -> None:
        self.classes = tuple(f"class {index + 1}" for index in range(num_classes))
        self._paths: dict[str, Path] = {}
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder")
        for path in sorted(folder.iterdir()):
            if path.suffix.lower() not in EXTENSIONS:
                continue
            if path.stem in self._paths:
                raise DataError(f"{path}: {self._paths[path.stem]} would get the same mask file")
            self._paths[validate_id(path.stem, path)] = path
        if not self._paths:
            raise DataError(f"{folder}: no images ({' '.join(EXTENSIONS)})")

    def ids(self, split: str) -> list[str]:
        """All images, whatever the list."""
        return list(self._paths)

    def image_path(self, image_id: str) -> Path:
        """The image file."""
        return self._paths[image_id]

    def labels(self, image_id: str) -> np.ndarray:
        """No label is known: `(Z,)` bool, all False."""
        return np.zeros(len(self.classes), bool)

    def size(self, image_id: str) -> tuple[int, int]:
        """(H, W) in pixels as displayed."""
        return image_size(self._paths[image_id])

    def mask_path(self, image_id: str) -> Path | None:
        """There are no masks."""
        return None


def predict(
    run: Path,
    images: Path,
    output: Path,
    *,
    method: str | None = None,
    crf: bool = False,
    device: str = "auto",
) -> int:
    """Write `<output>/<name>.png` (VOC palette) for every image in `images`.

    Args:
        run: folder of a run whose stage `segmenter` is done.
        images: folder of images.
        output: folder of the masks; made if missing. A mask that exists is written again.
        method: whose segmenter; by default c2am, or the last method of the run without it.
        crf: refine the masks by dense CRF, with the parameters of the run.
        device: auto, cpu or cuda.

    Returns:
        How many masks were written.

    Raises:
        ValueError: the run has no such segmenter; no images; two images of one name.
    """
    config, workspace = open_run(run)
    chosen = choose_method(workspace, config, method)
    weights = workspace.folder("segmenter", chosen) / "weights.safetensors"
    dataset = ImageFolder(images, len(read_state_dict(weights)[_ASPP]) - 1)
    # The trained weights hold everything, so nothing else is fetched or read.
    config.segmenter = dataclasses.replace(config.segmenter, weights="none")
    with distributed.session(device) as where, Events(output, "predict") as events:
        context = StageContext(
            config,
            workspace,
            dataset,
            where,
            build_method(chosen, config.front_door),
            output,
            events,
        )
        _write_masks(context, _crf_config(config) if crf else None)
    return len(dataset.ids(""))


def choose_method(workspace: Workspace, config: PipelineConfig, method: str | None) -> str:
    """`method`, or c2am, or the run's last; it must have a finished segmenter."""
    chosen = method or ("c2am" if "c2am" in config.methods else config.methods[-1])
    done = [name for name in config.methods if workspace.read_manifest("segmenter", name)]
    if chosen not in done:
        have = ", ".join(done) or "none"
        raise ValueError(
            f"{workspace.root}: no trained segmenter of method {chosen!r}; there are: {have}"
        )
    return chosen


@torch.inference_mode()
def _write_masks(context: StageContext, crf: CrfConfig | None) -> None:
    predictor = Predictor(context)
    with Workers() as workers:
        for batch in predictor.batches(context.dataset.ids(""), "predict"):
            results = zip(batch.ids, batch.images, predictor.probabilities(batch), strict=True)
            for image_id, image, probability in results:
                workers.submit(_write_mask, context, image_id, image, probability, crf)


def _write_mask(
    context: StageContext, image_id: str, image: Tensor, probability: Tensor, crf: CrfConfig | None
) -> None:
    best = probability.max(0).indices  # faster than argmax
    if crf is not None:
        true_image = context.config.predictions.crf_image == "true"
        guide = image if true_image else mean_subtracted(image)
        device = crf_device(context.device)
        best = refine(guide.to(device), probability.to(device), crf)
    write_mask(context.folder / f"{image_id}.png", best.to(torch.uint8).cpu().numpy())


def _crf_config(config: PipelineConfig) -> CrfConfig:
    """The run's CRF, or the default one where the run used none."""
    crf = config.predictions.crf or PredictionsConfig().crf
    assert crf is not None
    return crf
