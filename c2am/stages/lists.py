"""The images a per-image stage works on."""

from collections.abc import Iterable
from pathlib import Path

from c2am import distributed
from c2am.data import Dataset


def union(*lists: Iterable[str]) -> list[str]:
    """All ids of the lists, each once, in order of appearance."""
    return list(dict.fromkeys(image_id for ids in lists for image_id in ids))


def pending(ids: Iterable[str], folder: Path, suffix: str) -> list[str]:
    """This rank's images whose output `<folder>/<id><suffix>` is not there yet."""
    mine = distributed.shard(list(ids))
    return [image_id for image_id in mine if not (folder / f"{image_id}{suffix}").exists()]


def with_mask(dataset: Dataset, ids: Iterable[str]) -> list[str]:
    """The images that can be scored."""
    return [image_id for image_id in ids if dataset.mask_path(image_id) is not None]
