"""Methods: each file of this folder is one, a class `Method`, found by the file's name."""

import importlib
import pkgutil

from c2am.config import FrontDoorConfig
from c2am.methods.method import Artefacts, Method

__all__ = ["Artefacts", "Method", "build_method", "method_names"]


def method_names() -> list[str]:
    """Names of all methods, sorted."""
    return sorted(info.name for info in pkgutil.iter_modules(__path__) if info.name != "method")


def build_method(name: str, config: FrontDoorConfig) -> Method:
    """The method `name` with its settings.

    Raises:
        ValueError: no such method.
    """
    if name not in method_names():
        raise ValueError(f"method {name!r}: expected one of {', '.join(method_names())}")
    method: Method = importlib.import_module(f"{__name__}.{name}").Method(config)
    method.name = name
    return method
