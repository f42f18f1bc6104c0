"""Loaders: crops for training without end, and whole images at several scales for inference."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from c2am.config import TrainConfig
from c2am.data import pipelines
from c2am.data.dataset import DataError, Dataset
from c2am.data.images import read_encoded, read_image, read_mask
from c2am.data.sampling import Sample, rank_part, resized, sample, scaled
from c2am.normalization import Normalization

__all__ = ["InferenceBatch", "InferenceLoader", "Normalization", "TrainBatch", "TrainLoader"]


@dataclass(frozen=True)
class TrainBatch:
    """A micro-batch of crops; b images, Z classes."""

    images: Tensor
    """(b, 3, crop, crop) float32, normalised, 0 where a crop reaches outside of its image."""
    labels: Tensor
    """(b, Z) float32, 1 for the classes of the image (not of the crop)."""
    masks: Tensor | None
    """(b, crop, crop) uint8, 255 where a crop reaches outside."""
    ids: list[str]


@dataclass(frozen=True)
class InferenceBatch:
    """Whole images of one size; B images, V views, Z classes."""

    ids: list[str]
    size: tuple[int, int]
    """(H, W) of every image of the batch."""
    views: list[Tensor]
    """Per scale (B, V, 3, h, w) float32, normalised; view 1 is the mirror of view 0."""
    present: Tensor
    """(B, Z) bool, the classes of the image labels."""
    images: Tensor
    """(B, H, W, 3) uint8."""


class TrainLoader:
    """Random crops of the images of a list, and of their masks if asked for.

    Args:
        dataset: where images and labels come from.
        ids: the training list.
        config: batch size, crop and augmentation.
        normalization: of the network's input.
        seed: of the order and the augmentation.
        device: where the crops are made and end up.
        masks: path of an image's mask (palette or grey PNG of the image's size).
        threads: of the DALI pipeline.
        rank: index of this process.
        world_size: number of processes.

    Raises:
        DataError: the list is empty; in `batches`, a file that is broken or does not fit.
    """

    def __init__(
        self,
        dataset: Dataset,
        ids: Sequence[str],
        config: TrainConfig,
        *,
        normalization: Normalization,
        seed: int,
        device: torch.device,
        masks: Callable[[str], Path] | None = None,
        threads: int = 2,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if not ids:
            raise DataError("the training list is empty")
        self.dataset, self.ids, self.config = dataset, list(ids), config
        self.normalization, self.seed, self.device = normalization, seed, device
        self.masks, self.threads = masks, threads
        self._micro = config.batch_size // config.accumulate
        self._part = rank_part(self._micro, rank, world_size)
        self._labels = _label_table(dataset, self.ids)

    @property
    def steps_per_epoch(self) -> float:
        """Optimiser steps in one pass over the list."""
        return len(self.ids) / self.config.batch_size

    def batches(self, start: int) -> Iterator[TrainBatch]:
        """Micro-batches without end, from the one with index `start`."""
        feed = _Feed(self._rows(start))
        pipeline = pipelines.training_pipeline(
            feed,
            crop=self.config.crop,
            with_masks=self.masks is not None,
            normalization=self.normalization,
            batch_size=len(self._part),
            device=self.device,
            threads=self.threads,
        )
        for samples, (images, *masks) in feed.run(pipeline, self.device):
            labels = self._labels[[each.index for each in samples]]
            yield TrainBatch(
                images=images,
                labels=labels.float().to(self.device, non_blocking=True),
                masks=masks[0][..., 0] if masks else None,
                ids=[self.ids[each.index] for each in samples],
            )

    def _rows(self, start: int) -> Iterator[_Work]:
        batch = start
        while True:
            numbers = (batch * self._micro + place for place in self._part)
            flip, count = self.config.flip, len(self.ids)
            samples = [sample(n, count, self.seed, flip=flip) for n in numbers]
            paths = [self.dataset.image_path(self.ids[each.index]) for each in samples]
            yield _Work(samples, paths, lambda s=samples: map(self._row, s))
            batch += 1

    def _row(self, drawn: Sample) -> list[np.ndarray]:
        image_id = self.ids[drawn.index]
        path = self.dataset.image_path(image_id)
        encoded = read_encoded(path)
        row = [
            encoded.data,
            np.float32(resized(encoded.size, drawn.size_draw, self.config)),
            np.float32(drawn.anchor),
            np.array(drawn.flip, np.int32),
        ]
        if self.masks is None:
            return row
        mask_path = self.masks(image_id)
        mask = read_mask(mask_path)
        if mask.shape != encoded.size:
            raise DataError(
                f"{mask_path}: the mask is {mask.shape[0]} x {mask.shape[1]} pixels (H x W), "
                f"its image {path} {encoded.size[0]} x {encoded.size[1]}"
            )
        return [*row, mask[:, :, None]]


class InferenceLoader:
    """Whole images at several scales, in batches of images of one size.

    Args:
        dataset: where images and labels come from.
        ids: the images, each once.
        scales: factors on height and width; each scale is made from the image itself.
        flip: add the mirrored view.
        batch_size: most images of a batch.
        normalization: of the network's input.
        device: where the views are made and end up.
        threads: of the DALI pipeline.

    Raises:
        DataError: while iterating, a file that is broken.
    """

    def __init__(
        self,
        dataset: Dataset,
        ids: Sequence[str],
        *,
        scales: Sequence[float],
        flip: bool,
        batch_size: int,
        normalization: Normalization,
        device: torch.device,
        threads: int = 2,
    ) -> None:
        self.dataset, self.scales, self.flip = dataset, tuple(scales), flip
        self.normalization, self.device, self.threads = normalization, device, threads
        self._batch_size = batch_size
        self._buckets = _buckets(dataset, ids, batch_size)

    def __len__(self) -> int:
        """Number of batches."""
        return len(self._buckets)

    def __iter__(self) -> Iterator[InferenceBatch]:
        """The batches; sizes in the order in which they first occur."""
        if not self._buckets:
            return
        feed = _Feed(map(self._work, self._buckets))
        pipeline = pipelines.inference_pipeline(
            feed,
            scales=len(self.scales),
            flip=self.flip,
            normalization=self.normalization,
            batch_size=self._batch_size,
            device=self.device,
            threads=self.threads,
        )
        for ids, (images, *views) in feed.run(pipeline, self.device):
            present = _label_table(self.dataset, ids).to(self.device)
            size = (images.shape[1], images.shape[2])
            yield InferenceBatch(ids, size, views, present, images)

    def _work(self, ids: list[str]) -> _Work:
        paths = [self.dataset.image_path(image_id) for image_id in ids]
        return _Work(ids, paths, lambda: map(self._row, paths))

    def _row(self, path: Path) -> list[np.ndarray]:
        encoded = read_encoded(path)
        sizes = [np.float32(scaled(encoded.size, scale)) for scale in self.scales]
        return [encoded.data, *sizes]


@dataclass(frozen=True)
class _Work:
    """A batch on its way through DALI: what it is of, its files, and its input rows."""

    items: list
    paths: list[Path]
    rows: Callable[[], Iterable[list[np.ndarray]]]


class _Feed:
    """Hands batches to a pipeline and pairs its outputs with what they are of.

    DALI takes a batch ahead of what it gives out, so those on their way wait in a queue.
    """

    def __init__(self, work: Iterator[_Work]) -> None:
        self._work = work
        self._queue: deque[_Work] = deque()

    def __call__(self) -> pipelines.Columns:
        work = next(self._work)
        self._queue.append(work)
        return pipelines.columns(work.rows())

    def run(
        self, pipeline: pipelines.Pipeline, device: torch.device
    ) -> Iterator[tuple[list, list[Tensor]]]:
        """What each batch is of, and its tensors."""
        results = pipelines.outputs(pipeline, device)
        while True:
            try:
                tensors = next(results)
            except StopIteration:
                return
            except RuntimeError as error:
                self._blame(error)
            yield self._queue.popleft().items, tensors

    def _blame(self, error: RuntimeError) -> None:
        """DALI does not say which file of a batch it could not decode; Pillow does."""
        paths = [path for work in self._queue for path in work.paths]
        for path in paths:
            read_image(path)
        listed = ", ".join(str(path) for path in paths)
        raise DataError(f"DALI cannot decode one of {listed}: {error}") from error


def _label_table(dataset: Dataset, ids: Sequence[str]) -> Tensor:
    """(N, Z) bool."""
    rows = [dataset.labels(image_id) for image_id in ids]
    return torch.from_numpy(np.stack(rows).astype(bool))


def _buckets(dataset: Dataset, ids: Sequence[str], batch_size: int) -> list[list[str]]:
    by_size: dict[tuple[int, int], list[str]] = {}
    for image_id in ids:
        by_size.setdefault(dataset.size(image_id), []).append(image_id)
    return [
        same[first : first + batch_size]
        for same in by_size.values()
        for first in range(0, len(same), batch_size)
    ]
