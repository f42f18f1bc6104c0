"""Fixtures of the tests of data."""

import pytest
from data.files import Files


@pytest.fixture
def files(tmp_path) -> Files:
    return Files(tmp_path)
