"""Datasets, image files, and the loaders in `c2am.data.loader`."""

from pathlib import Path

from c2am.config import DataConfig
from c2am.data.dataset import DataError, Dataset, Report, naming, refuse
from c2am.data.folder import FolderDataset
from c2am.data.images import read_image, read_mask
from c2am.data.synthetic import SyntheticDataset
from c2am.data.voc import VOC_CLASSES, VocDataset
from c2am.palette import voc_palette

__all__ = [
    "VOC_CLASSES",
    "DataError",
    "Dataset",
    "FolderDataset",
    "SyntheticDataset",
    "VocDataset",
    "naming",
    "open_dataset",
    "read_image",
    "read_mask",
    "voc_palette",
]


def open_dataset(config: DataConfig, folder: Path, report: Report = refuse) -> Dataset:
    """Open the dataset of a configuration.

    Synthetic data is drawn into `config.root`, or into `folder` where that is empty. `report` is
    told of entries of lists and tables that are wrong, now or when a list is read; by default it
    raises. Raises `DataError` naming what is missing.
    """
    root = Path(config.root) if config.root else Path(folder)
    labels = Path(config.labels) if config.labels else None
    if config.kind == "synthetic":
        return SyntheticDataset(config.synthetic, root)
    if config.kind == "folder":
        return FolderDataset(root, labels=labels, report=report)
    sbd = Path(config.sbd) if config.sbd else None
    return VocDataset(root, labels=labels, sbd=sbd, report=report)
