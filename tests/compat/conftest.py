"""Fixtures: pydensecrf, where it is installed."""

from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def theirs() -> ModuleType:
    return pytest.importorskip("pydensecrf.densecrf")


@pytest.fixture(scope="session")
def their_utils() -> ModuleType:
    return pytest.importorskip("pydensecrf.utils")
