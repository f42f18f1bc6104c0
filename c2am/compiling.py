"""torch.compile of networks, chosen in one place for training and inference."""

import os
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

Net = TypeVar("Net", bound=nn.Module)


def is_wanted(device: torch.device, setting: bool | None) -> bool:
    """Whether to compile on `device`: `setting`, or where it is None on CUDA only."""
    return device.type == "cuda" if setting is None else setting


def compile_for_training(
    net: nn.Module, device: torch.device, setting: bool | None, mode: str
) -> None:
    """Compile `net` for inputs of a few fixed shapes, if wanted; `mode` is torch.compile's."""
    if is_wanted(device, setting):
        _keep_what_is_compiled()
        net.compile(mode=mode, dynamic=False)


def compile_for_inference(
    net: Net, device: torch.device, setting: bool | None, *, backend: str = "inductor"
) -> Net:
    """Compile `net` for images of any size, if that is wanted; returns it.

    Height, width and number of images are symbols of one graph; one image alone makes a second one.
    Of the IRN, which cuts features of several strides to one size, some sizes make further ones.
    To pad images to a few sizes instead would change the features: outside of an image, where every
    convolution sees zeros, the one before has left its bias.
    """
    if is_wanted(device, setting):
        _keep_what_is_compiled()
        net.compile(dynamic=True, backend=backend)
    return net


def _keep_what_is_compiled() -> None:
    # torch keeps what it compiles in /tmp, which is empty in a job's next container.
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache / "c2am" / "inductor"))
