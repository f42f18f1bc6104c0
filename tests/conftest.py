"""Fixtures of all tests."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

HAS_CUDA = torch.cuda.is_available()
if not HAS_CUDA:
    # Triton reads it when it is first imported; then its kernels run on CPU tensors.
    os.environ["TRITON_INTERPRET"] = "1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests marked `gpu` where there is no CUDA device."""
    if HAS_CUDA:
        return
    skip = pytest.mark.skip(reason="needs a CUDA device")
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(skip)


@pytest.fixture(autouse=True)
def seed() -> int:
    """The seed of the global generators, set anew before each test."""
    torch.manual_seed(0)
    return 0


@pytest.fixture
def rng(seed: int) -> np.random.Generator:
    """A seeded NumPy generator."""
    return np.random.default_rng(seed)


@pytest.fixture
def generator(seed: int) -> torch.Generator:
    """A seeded torch generator."""
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="session")
def voc_root() -> Path:
    """A VOCdevkit's VOC2012 folder: that of `C2AM_VOC`, or one beside the repository."""
    beside = Path(__file__).parents[2] / "shared" / "data" / "VOCdevkit" / "VOC2012"
    root = Path(os.environ.get("C2AM_VOC", beside))
    if not (root / "JPEGImages").is_dir():
        pytest.skip("no PASCAL VOC 2012: set C2AM_VOC to its VOC2012 folder")
    return root


@pytest.fixture(scope="session")
def triton_device() -> torch.device:
    """Where Triton kernels run: on the GPU, or in the interpreter."""
    return torch.device("cuda" if HAS_CUDA else "cpu")
