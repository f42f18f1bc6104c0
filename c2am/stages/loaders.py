"""The loaders of a stage, made from its context."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from c2am import distributed
from c2am.config import TrainConfig
from c2am.data.loader import InferenceBatch, InferenceLoader, TrainLoader
from c2am.normalization import Normalization
from c2am.progress import progress
from c2am.stages.context import StageContext


def train_loader(
    context: StageContext,
    config: TrainConfig,
    normalization: Normalization,
    masks: Callable[[str], Path] | None = None,
) -> TrainLoader:
    """The endless stream of crops of the training list, this rank's part of it."""
    data = context.config.data
    return TrainLoader(
        context.dataset,
        context.dataset.ids(data.train_list),
        config,
        normalization=normalization,
        seed=context.config.seed,
        device=context.device,
        masks=masks,
        threads=data.threads,
        rank=distributed.rank(),
        world_size=distributed.world_size(),
    )


def inference_loader(
    context: StageContext,
    ids: Sequence[str],
    normalization: Normalization,
    *,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    batch_size: int = 1,
) -> InferenceLoader:
    """Whole images in batches of one size."""
    return InferenceLoader(
        context.dataset,
        list(ids),
        scales=scales,
        flip=flip,
        batch_size=batch_size,
        normalization=normalization,
        device=context.device,
        threads=context.config.data.threads,
    )


def inference_batches(
    context: StageContext,
    ids: Sequence[str],
    normalization: Normalization,
    description: str,
    *,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    batch_size: int = 1,
) -> Iterator[InferenceBatch]:
    """The batches of `inference_loader`, with a progress bar that counts their images."""
    loader = inference_loader(
        context, ids, normalization, scales=scales, flip=flip, batch_size=batch_size
    )
    return progress(loader, description, total=len(ids), count=lambda batch: len(batch.ids))
