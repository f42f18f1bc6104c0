"""Checkpoints of a training: whole, verified when read, and enough to continue bit for bit."""

import hashlib
import json
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from c2am import distributed
from c2am.workspace import (
    WorkspaceError,
    read_json,
    read_metadata,
    read_tensors,
    write_json,
    write_tensors,
)

WEIGHTS = "weights.safetensors"
METRICS = "training.json"
_KEEP = 2


class Checkpoints:
    """`checkpoint-<step>.safetensors` in a folder: network, momentum and random state.

    The random state is that of the main rank. The state of the loader is the step itself.

    Args:
        folder: where they are kept, the newest two.
        net: the network, with all parameters of `optimizer`.
        optimizer: SGD; its momentum buffers are kept, its learning rates follow from the step.
    """

    def __init__(self, folder: Path, net: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.folder = folder
        self.net = net
        self.optimizer = optimizer

    def save(self, step: int) -> None:
        """Write the state after `step` steps, on the main rank, and drop the oldest."""
        if not distributed.is_main():
            return
        tensors = {f"net.{name}": tensor for name, tensor in self.net.state_dict().items()}
        for name, parameter in self._optimized().items():
            buffer = self.optimizer.state[parameter].get("momentum_buffer")
            if buffer is not None:
                tensors[f"momentum.{name}"] = buffer
        tensors |= _random_state()
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        header = {"step": step, "sha256": _digest(tensors)}
        path = self.folder / f"checkpoint-{step}.safetensors"
        write_tensors(path, tensors, {"checkpoint": json.dumps(header)})
        for _, old in self._files()[:-_KEEP]:
            old.unlink()

    def restore(self) -> int:
        """Load the newest whole checkpoint; return its step, 0 without one.

        A file that is torn or altered is passed over with a warning, for the one before it.

        Raises:
            RuntimeError: the checkpoint belongs to another network.
        """
        for step, path in reversed(self._files()):
            try:
                tensors = _read(path, step)
            except WorkspaceError as error:
                warnings.warn(f"{error}; going back to the checkpoint before", stacklevel=2)
                continue
            self._load(tensors)
            return step
        return 0

    def clear(self) -> None:
        """Remove the checkpoints: the training is finished."""
        for _, path in self._files():
            path.unlink()

    def _load(self, tensors: dict[str, Tensor]) -> None:
        self.net.load_state_dict(_part(tensors, "net."))
        momentum = _part(tensors, "momentum.")
        for name, parameter in self._optimized().items():
            if name in momentum:
                # Into a copy of the parameter, so that device and memory layout are its own.
                buffer = torch.empty_like(parameter).copy_(momentum[name])
                self.optimizer.state[parameter]["momentum_buffer"] = buffer.detach()
        torch.set_rng_state(tensors["random.cpu"])
        if "random.cuda" in tensors and torch.cuda.is_available():
            torch.cuda.set_rng_state(tensors["random.cuda"])

    def _optimized(self) -> dict[str, nn.Parameter]:
        names = {parameter: name for name, parameter in self.net.named_parameters()}
        groups = self.optimizer.param_groups
        parameters = [parameter for group in groups for parameter in group["params"]]
        if any(parameter not in names for parameter in parameters):
            raise ValueError("parameter_groups: a parameter is not part of the network")
        return {names[parameter]: parameter for parameter in parameters}

    def _files(self) -> list[tuple[int, Path]]:
        """Steps and files, oldest first."""
        found = []
        for path in self.folder.glob("checkpoint-*.safetensors"):
            step = path.stem.removeprefix("checkpoint-")
            if step.isdecimal():
                found.append((int(step), path))
        return sorted(found)


def _read(path: Path, step: int) -> dict[str, Tensor]:
    tensors = read_tensors(path)
    header = json.loads(read_metadata(path).get("checkpoint", "{}"))
    if header != {"step": step, "sha256": _digest(tensors)}:
        raise WorkspaceError(f"{path} does not match its checksum")
    return tensors


def _digest(tensors: dict[str, Tensor]) -> str:
    """SHA-256 over names, dtypes, shapes and contents of contiguous CPU tensors."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }


def _random_state() -> dict[str, Tensor]:
    state = {"random.cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["random.cuda"] = torch.cuda.get_rng_state()
    return state


def write_weights(folder: Path, net: nn.Module, metrics: dict[str, float]) -> None:
    """Write the finished network, and beside it the metrics of its training.

    The metrics, speed among them, have a file of their own and come first: so the same training
    gives the same bytes of weights, and where there are weights there are metrics.
    """
    write_json(folder / METRICS, metrics)
    write_tensors(folder / WEIGHTS, net.state_dict())


def read_weights(folder: Path, net: nn.Module) -> dict[str, float] | None:
    """Load what `write_weights` wrote and return the metrics; None where it is not there yet."""
    path = folder / WEIGHTS
    if not path.exists():
        return None
    net.load_state_dict(read_tensors(path))
    metrics: dict[str, float] = read_json(folder / METRICS)
    return metrics
