"""Loaders: crops for training without end, and whole images at several scales for inference."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from c2am.config import TrainConfig
from c2am.data import pipelines
from c2am.data.dataset import DataError, Dataset
from c2am.data.images import read_encoded, read_image, read_mask
from c2am.data.sampling import Sample, crop_anchor, rank_part, resized, sample, scaled
from c2am.normalization import Normalization
from c2am.transfer import to_device

__all__ = [
    "InferenceBatch",
    "InferenceLoader",
    "Normalization",
    "TrainBatch",
    "TrainLoader",
    "buckets",
]


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
    images: Tensor
    """(B, H, W, 3) uint8."""
    dataset: Dataset
    """Where the image labels come from."""

    @cached_property
    def present(self) -> Tensor:
        """(B, Z) bool, on the CPU, the classes of the image labels.

        Read when asked for, as tests have none.
        """
        return _label_table(self.dataset, self.ids)


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
        threads: of the DALI pipeline, and as many that read files.
        rank: index of this process.
        world_size: number of processes.

    Raises:
        ValueError: there are more ranks than images in a micro-batch.
        DataError: the list is empty, or labels are missing; in `batches`, a file that is broken
            or does not fit.
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
        if not self._part:
            raise ValueError(
                f"{world_size} ranks share micro-batches of {self._micro}: too few images"
            )
        self._labels = _label_table(dataset, self.ids)

    @property
    def steps_per_epoch(self) -> float:
        """Optimiser steps in one pass over the list."""
        return len(self.ids) / self.config.batch_size

    def batches(self, start: int) -> Iterator[TrainBatch]:
        """Micro-batches without end, from the one with index `start`."""
        feed = _Feed(self._stream(start), self.threads)
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
                labels=to_device(labels.float(), self.device),
                masks=masks[0][..., 0] if masks else None,
                ids=[self.ids[each.index] for each in samples],
            )

    def _stream(self, start: int) -> Iterator[_Work]:
        batch = start
        while True:
            numbers = (batch * self._micro + place for place in self._part)
            flip, count = self.config.flip, len(self.ids)
            samples = [sample(n, count, self.seed, flip=flip) for n in numbers]
            paths = [self.dataset.image_path(self.ids[each.index]) for each in samples]
            yield _Work(samples, paths, self._row)
            batch += 1

    def _row(self, drawn: Sample, path: Path) -> list[np.ndarray]:
        encoded = read_encoded(path)
        size = resized(encoded.size, drawn.size_draw, self.config)
        row = [
            encoded.data,
            np.array(size, np.float32),
            np.array(crop_anchor(size, self.config.crop, drawn.crop_draw), np.float32),
            np.array(drawn.flip, np.int32),
        ]
        if self.masks is None:
            return row
        mask_path = self.masks(self.ids[drawn.index])
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
        self._buckets = buckets(dataset, ids, batch_size)

    def __len__(self) -> int:
        """Number of batches."""
        return len(self._buckets)

    def __iter__(self) -> Iterator[InferenceBatch]:
        """The batches; sizes in the order in which they first occur."""
        if not self._buckets:
            return
        feed = _Feed(map(self._work, self._buckets), self.threads)
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
            size = (images.shape[1], images.shape[2])
            yield InferenceBatch(ids, size, views, images, self.dataset)

    def _work(self, ids: list[str]) -> _Work:
        paths = [self.dataset.image_path(image_id) for image_id in ids]
        return _Work(ids, paths, self._row)

    def _row(self, image_id: str, path: Path) -> list[np.ndarray]:
        encoded = read_encoded(path)
        sizes = [np.array(scaled(encoded.size, scale), np.float32) for scale in self.scales]
        return [encoded.data, *sizes]


@dataclass(frozen=True)
class _Work:
    """A batch on its way through DALI: what it is of, its image files, how one is read."""

    items: list
    paths: list[Path]
    row: Callable[[Any, Path], list[np.ndarray]]

    def columns(self) -> pipelines.Columns:
        return pipelines.columns(map(self.row, self.items, self.paths))


class _Feed:
    """Hands batches to a pipeline and pairs its outputs with what they are of.

    Threads read files ahead of DALI, and DALI takes a batch ahead of what it gives out; so batches
    wait in two queues.
    """

    def __init__(self, work: Iterator[_Work], threads: int) -> None:
        self._work = work
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="c2am-read")
        self._ahead: deque[tuple[_Work, Future[pipelines.Columns]]] = deque()
        self._queue: deque[_Work] = deque()

    def __call__(self) -> pipelines.Columns:
        for work in islice(self._work, pipelines.PREFETCH + 1 - len(self._ahead)):
            self._ahead.append((work, self._pool.submit(work.columns)))
        if not self._ahead:
            raise StopIteration
        work, columns = self._ahead.popleft()
        self._queue.append(work)
        return columns.result()

    def run(
        self, pipeline: pipelines.Pipeline, device: torch.device
    ) -> Iterator[tuple[list, list[Tensor]]]:
        """What each batch is of, and its tensors."""
        results = pipelines.outputs(pipeline, device)
        try:
            while (tensors := self._next(results)) is not None:
                yield self._queue.popleft().items, tensors
        finally:
            self._pool.shutdown(cancel_futures=True)

    def _next(self, results: Iterator[list[Tensor]]) -> list[Tensor] | None:
        try:
            return next(results, None)
        except RuntimeError as error:
            self._blame(error)
            raise

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


MOST_PIXELS = 16_000_000
"""Of the images of a batch: 85 of VOC; a single image may have more."""


def buckets(dataset: Dataset, ids: Sequence[str], batch_size: int) -> list[list[str]]:
    """The batches of `InferenceLoader`: images of one size, in the order of the list.

    Large images come in smaller batches, of up to `MOST_PIXELS`, and so fit into memory.
    """
    by_size: dict[tuple[int, int], list[str]] = {}
    for image_id in ids:
        by_size.setdefault(dataset.size(image_id), []).append(image_id)
    return [
        same[first : first + count]
        for (height, width), same in by_size.items()
        for count in [max(1, min(batch_size, MOST_PIXELS // (height * width)))]
        for first in range(0, len(same), count)
    ]
