"""Reading weights: safetensors or torch files, checked name by name, never unpickled."""

from collections.abc import Callable, Collection
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

_SHOWN = 8


class WeightsError(ValueError):
    """Weights that cannot be read or do not fit; names the file and the keys."""


def load_weights(net: nn.Module, path: str | Path) -> None:
    """Load the weights of `path` into `net`, every tensor of it and nothing else.

    Raises:
        WeightsError: the file is unreadable, or keys are missing, unexpected or wrongly shaped.
    """
    load_state(net, read_state_dict(path), str(path))


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Tensors by name of a `.safetensors`, `.pth`, `.pt` or `.ckpt` file, on the CPU.

    A torch file is read with `weights_only=True`, so it cannot run code. One that holds its
    tensors under `state_dict` or `model`, or with a `module.` prefix from data-parallel
    training, is unwrapped.

    Raises:
        WeightsError: no such file, another format, or not a dictionary of tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"{path}: no such file of weights")
    return _unwrap(_reader(path)(path), path)


def load_state(net: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Load `state` into `net`; `source` names it in the error.

    Files from before torch 0.4.1 have no `num_batches_tracked`. Only batch norms without a
    momentum read that counter, which no network here has, so it alone may be absent.
    """
    own = net.state_dict()
    counters = {name for name in own if name.endswith("num_batches_tracked")}
    problems = [
        ("missing", sorted(own.keys() - state.keys() - counters)),
        ("unexpected", sorted(state.keys() - own.keys())),
        ("wrongly shaped", _wrong_shapes(own, state)),
    ]
    if any(names for _, names in problems):
        lines = [f"  {kind} ({len(names)}): {listed(names)}" for kind, names in problems if names]
        network = type(net).__name__
        raise WeightsError("\n".join([f"{source}: these weights do not fit {network}", *lines]))
    net.load_state_dict(own | state)


def drop_keys(state: dict[str, Tensor], prefixes: Collection[str]) -> dict[str, Tensor]:
    """`state` without the keys that begin with one of `prefixes`."""
    return {k: v for k, v in state.items() if not k.startswith(tuple(prefixes))}


def _reader(path: Path) -> Callable[[Path], object]:
    if path.suffix == ".safetensors":
        return _read_safetensors
    if path.suffix in (".pth", ".pt", ".ckpt"):
        return _read_torch
    raise WeightsError(f"{path}: expected a .safetensors, .pth, .pt or .ckpt file of weights")


def _read_safetensors(path: Path) -> object:
    try:
        return safetensors.torch.load_file(path)
    except safetensors.SafetensorError as error:
        raise WeightsError(f"{path}: not a readable safetensors file ({error})") from error


def _read_torch(path: Path) -> object:
    # torch.load has no error of its own: a damaged file surfaces as whatever its parts raise.
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        message = f"{path}: not a torch file of plain tensors ({type(error).__name__}: {error})"
        raise WeightsError(message) from error


def _unwrap(content: object, path: Path) -> dict[str, Tensor]:
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not content:
        raise WeightsError(f"{path}: expected a dictionary of tensors, found {type(content)}")
    wrong = [str(k) for k, v in content.items() if not isinstance(v, Tensor)]
    if wrong:
        raise WeightsError(f"{path}: expected tensors only, but not so are {listed(wrong)}")
    return {str(k).removeprefix("module."): v for k, v in content.items()}


def _wrong_shapes(own: dict[str, Tensor], state: dict[str, Tensor]) -> list[str]:
    return [
        f"{name} {tuple(state[name].shape)} instead of {tuple(own[name].shape)}"
        for name in sorted(own.keys() & state.keys())
        if own[name].shape != state[name].shape
    ]


def listed(names: list[str]) -> str:
    """The first names of a list, for an error."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
