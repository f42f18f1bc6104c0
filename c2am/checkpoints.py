"""Checkpoints of a training: whole, verified when read, and enough to continue bit for bit."""

import hashlib
import json
import warnings
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

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


class Checkpoints:
    """`checkpoint-<step>.safetensors` in a folder: network, momentum, random state of every rank.

    The state of the loader is the step itself. The main rank writes, in a thread of its own, and
    decides which one is read. A context manager: at its end the last one is on the disk.

    Args:
        folder: where they are kept, seen by all ranks.
        net: the network, with all parameters of `optimizer`.
        optimizer: SGD; its momentum buffers are kept, its learning rates follow from the step.
        keep: how many are kept, the newest ones.
    """

    def __init__(
        self, folder: Path, net: nn.Module, optimizer: torch.optim.Optimizer, keep: int = 2
    ) -> None:
        self.folder = folder
        self.net = net
        self.optimizer = optimizer
        self.keep = keep
        self._device = next(net.parameters()).device
        self._copies: dict[str, Tensor] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="c2am-checkpoint")
        self._writing: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._thread.shutdown()
        if kind is None:
            self.wait()

    def save(self, step: int, more: Mapping[str, Tensor] = {}) -> None:
        """Copy the state after `step` steps, and `more`; write it in the background.

        All ranks call it. It waits for the one before, if that is still being written.

        Raises:
            WorkspaceError: the one before could not be written.
        """
        random = _random_states(self._device)
        if not distributed.is_main():
            return
        self.wait()
        tensors = {f"net.{name}": tensor for name, tensor in self.net.state_dict().items()}
        for name, parameter in self._optimized().items():
            buffer = self.optimizer.state[parameter].get("momentum_buffer")
            if buffer is not None:
                tensors[f"momentum.{name}"] = buffer
        tensors |= random | {f"more.{name}": tensor for name, tensor in more.items()}
        copied = {name: self._copy(name, tensor.detach()) for name, tensor in tensors.items()}
        done = None
        if self._device.type == "cuda":
            done = torch.cuda.current_stream(self._device).record_event()
        self._writing = self._thread.submit(self._write, step, copied, done)

    def _copy(self, name: str, tensor: Tensor) -> Tensor:
        """A copy in host memory; that of a GPU is filled while the training goes on."""
        copy = self._copies.get(name)
        if copy is None or copy.shape != tensor.shape:
            copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
            self._copies[name] = copy
        return copy.copy_(tensor, non_blocking=True)

    def _write(self, step: int, tensors: dict[str, Tensor], done: torch.cuda.Event | None) -> None:
        if done is not None:
            done.synchronize()
        write_tensors(self._path(step), tensors, {"checkpoint": _header(step, tensors)})
        for _, old in self._files()[: -self.keep]:
            old.unlink()

    def wait(self) -> None:
        """Wait until the last one is on the disk.

        Raises:
            WorkspaceError: it could not be written.
        """
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def check(self) -> None:
        """Raise what `wait` would raise, if it is known already."""
        if self._writing is not None and self._writing.done():
            self.wait()

    def restore(self) -> tuple[int, dict[str, Tensor]]:
        """Load the newest whole checkpoint on all ranks; returns its step and its `more`.

        Without one it is step 0. A file that is torn or altered is passed over with a warning, for
        the one before it.

        Raises:
            RuntimeError: the checkpoint belongs to another network.
            WorkspaceError: a rank cannot read the one that the main rank has read.
        """
        step, tensors = self._newest() if distributed.is_main() else (0, {})
        step = distributed.from_main(step, self._device)
        if step == 0:
            return 0, {}
        tensors = tensors or _read(self._path(step), step)
        self._load(tensors)
        return step, _part(tensors, "more.")

    def _newest(self) -> tuple[int, dict[str, Tensor]]:
        for step, path in reversed(self._files()):
            try:
                return step, _read(path, step)
            except WorkspaceError as error:
                warnings.warn(f"{error}; going back to the checkpoint before", stacklevel=4)
        return 0, {}

    def clear(self) -> None:
        """Remove the checkpoints: the training is finished."""
        self.wait()
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
        _set_random_state(tensors, self._device)

    def _optimized(self) -> dict[str, nn.Parameter]:
        names = {parameter: name for name, parameter in self.net.named_parameters()}
        groups = self.optimizer.param_groups
        parameters = [parameter for group in groups for parameter in group["params"]]
        if any(parameter not in names for parameter in parameters):
            raise ValueError("parameter_groups: a parameter is not part of the network")
        return {names[parameter]: parameter for parameter in parameters}

    def _path(self, step: int) -> Path:
        return self.folder / f"checkpoint-{step}.safetensors"

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
    header = read_metadata(path).get("checkpoint")
    if header != _header(step, tensors):
        raise WorkspaceError(f"{path} does not match its checksum")
    return tensors


def _header(step: int, tensors: dict[str, Tensor]) -> str:
    return json.dumps({"step": step, "sha256": _digest(tensors)})


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


def _random_states(device: torch.device) -> dict[str, Tensor]:
    """The states of the generators, (R, n) uint8: a row for each rank."""
    states = {"random.cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["random.cuda"] = torch.cuda.get_rng_state(device)
    return {name: distributed.gather(state.to(device)) for name, state in states.items()}


def _set_random_state(tensors: dict[str, Tensor], device: torch.device) -> None:
    """Go on with the own random numbers; a rank that was not there takes those of another."""

    def own(name: str) -> Tensor:
        rows = tensors[name]
        return rows[distributed.rank() % len(rows)].clone()  # at an offset torch crashes

    torch.set_rng_state(own("random.cpu"))
    if "random.cuda" in tensors and device.type == "cuda":
        torch.cuda.set_rng_state(own("random.cuda"), device)


def write_weights(folder: Path, net: nn.Module, metrics: dict[str, float]) -> None:
    """Write the finished network, and beside it the metrics of its training.

    The metrics, speed among them, have a file of their own and come first: so the same training
    gives the same bytes of weights, and where there are weights there are metrics.
    """
    write_json(folder / METRICS, metrics)
    write_tensors(folder / WEIGHTS, net.state_dict())


def read_weights(folder: Path, net: nn.Module, device: torch.device) -> dict[str, float] | None:
    """Load what `write_weights` wrote and return the metrics; None where it is not there yet.

    The main rank decides for all, which are on `device`.
    """
    path = folder / WEIGHTS
    if not distributed.from_main(path.exists(), device):
        return None
    net.load_state_dict(read_tensors(path))
    metrics: dict[str, float] = read_json(folder / METRICS)
    return metrics
