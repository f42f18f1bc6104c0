"""Causal CAM (C2AM): from image-level labels to segmentation masks."""

import importlib
from types import ModuleType

__version__ = "0.1.0"


def __getattr__(name: str) -> ModuleType:
    """Import `c2am.ops` on first use, so that `import c2am` stays light."""
    if name == "ops":
        return importlib.import_module("c2am.ops")
    raise AttributeError(f"module 'c2am' has no attribute {name!r}")
