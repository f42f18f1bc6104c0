"""Every path that a run reads or writes.

A run is one folder; nothing hides elsewhere. Each file is written under a temporary name beside
its own and renamed when it is whole, so a killed run never leaves a file that is taken for a
complete one. Tensors are safetensors, masks are palette PNGs, the rest is JSON: no pickle.
"""

import fcntl
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from c2am.palette import voc_palette

TEMPORARY = ".tmp-"
_MANIFEST = "manifest.json"
_RUNNING = "running.json"
_CONFIG = "config.yaml"
_WRITTEN = frozenset({".safetensors", ".png", ".json"})


class WorkspaceError(OSError):
    """A file of a run cannot be read or written; the message names it."""


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Give an error of the block the name of what it writes: it becomes a `WorkspaceError`."""
    try:
        yield
    except WorkspaceError:
        raise
    except (OSError, SafetensorError) as error:
        raise WorkspaceError(f"cannot write {path}: {error}") from error


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, with its suffix; rename it when the block ends well.

    The content reaches the disk before the name does (fsync, then rename). The folder is made if
    it is missing. When the block fails, the temporary file is removed and `path` is as it was.

    Raises:
        WorkspaceError: the folder cannot be written or the disk is full.
    """
    path = Path(path)
    temporary = path.with_name(f"{TEMPORARY}{os.getpid()}-{secrets.token_hex(4)}{path.suffix}")
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            _flush(temporary)
            temporary.replace(path)
    finally:
        if os.path.lexists(temporary):  # unlike Path.exists, False in a folder that cannot be read
            temporary.unlink()


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def is_run(folder: Path) -> bool:
    """Whether the folder is that of a run."""
    return (folder / _CONFIG).is_file()


def remove_temporaries(folder: Path) -> int:
    """Remove what killed processes left unfinished below `folder`; return how many files."""
    leftovers = [path for path in folder.rglob(f"{TEMPORARY}*") if path.is_file()]
    for path in leftovers:
        path.unlink()
    return len(leftovers)


def write_tensors(
    path: str | Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] = {}
) -> None:
    """Write named tensors of any device and memory layout, and string metadata, as safetensors."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic(path) as temporary:
        save_file(plain, temporary, metadata=dict(metadata))


def read_tensors(path: str | Path) -> dict[str, torch.Tensor]:
    """Read the tensors of a safetensors file, on the CPU."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise WorkspaceError(f"cannot read {path}: {error}") from error


def tensor_names(path: str | Path) -> set[str]:
    """The names of the tensors in a safetensors file, from its header alone."""
    try:
        with safe_open(path, framework="pt") as file:
            return set(file.keys())
    except (OSError, SafetensorError) as error:
        raise WorkspaceError(f"cannot read {path}: {error}") from error


def read_metadata(path: str | Path) -> dict[str, str]:
    """Read the string metadata of a safetensors file."""
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise WorkspaceError(f"cannot read {path}: {error}") from error


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON. NaN and infinity are refused: they are not JSON."""
    try:
        text = json.dumps(value, indent=2, allow_nan=False)
    except ValueError as error:
        raise ValueError(f"{path}: a value is not JSON: {error}") from error
    with atomic(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: str | Path) -> Any:
    """Read a JSON file."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WorkspaceError(f"cannot read {path}: {error}") from error


def write_mask(path: str | Path, mask: np.ndarray) -> None:
    """Write `mask (H, W) uint8` of class indices as a PNG with the VOC palette."""
    if mask.dtype != np.uint8 or mask.ndim != 2:
        raise ValueError(f"mask: expected (H, W) uint8, got {mask.shape} {mask.dtype}")
    image = Image.fromarray(mask)
    image.putpalette(voc_palette().tobytes())
    with atomic(path) as temporary:
        image.save(temporary, format="PNG")


class Workspace:
    """The folder of one run: `<root>/<stage>[/<method>]/...`."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    @property
    def config_path(self) -> Path:
        """The full resolved configuration."""
        return self.root / _CONFIG

    @property
    def events(self) -> Path:
        """TensorBoard files and metrics.jsonl."""
        return self.root / "events"

    def folder(self, stage: str, method: str | None = None) -> Path:
        """Folder of a stage, or of a method within it."""
        for name in (stage, method):
            if name is not None and (name in ("", ".", "..") or set(name) & set("/\\\0")):
                raise ValueError(f"{name!r} is not a plain name of a stage or method")
        return self.root / stage / method if method else self.root / stage

    def read_manifest(self, stage: str, method: str | None = None) -> dict[str, Any] | None:
        """Manifest of a finished stage; None where it has not finished."""
        path = self.folder(stage, method) / _MANIFEST
        return read_json(path) if path.exists() else None

    def write_manifest(self, stage: str, method: str | None, manifest: dict[str, Any]) -> None:
        """Declare a stage finished."""
        folder = self.folder(stage, method)
        write_json(folder / _MANIFEST, manifest)
        (folder / _RUNNING).unlink(missing_ok=True)

    def read_running(self, stage: str, method: str | None = None) -> dict[str, Any] | None:
        """What `begin` noted of a stage that was started and has not finished."""
        path = self.folder(stage, method) / _RUNNING
        return read_json(path) if path.exists() else None

    def begin(self, stage: str, method: str | None, note: dict[str, Any], *, clear: bool) -> None:
        """Declare a stage started, with its files of an earlier configuration removed on `clear`.

        Only a folder that a stage owns (it holds a manifest or a note) is cleared, only of the
        kinds of files by which a stage tells what is done, and links are not followed.
        """
        folder = self.folder(stage, method)
        if clear and folder.exists():
            self._clear(folder)
        write_json(folder / _RUNNING, note)
        remove_temporaries(folder)

    def _clear(self, folder: Path) -> None:
        if not folder.resolve().is_relative_to(self.root.resolve()):
            raise WorkspaceError(f"{folder} leads out of the run; remove its files yourself")
        if not any(folder.iterdir()):
            return
        if not any((folder / name).exists() for name in (_MANIFEST, _RUNNING)):
            raise WorkspaceError(f"{folder} holds files that no stage of this run wrote; move them")
        # A kill in the middle leaves this note, whose fingerprint fits nothing: cleared again.
        write_json(folder / _RUNNING, {"fingerprint": None})
        (folder / _MANIFEST).unlink(missing_ok=True)
        for path in folder.rglob("*"):
            if path.suffix in _WRITTEN and path.name != _RUNNING and not path.is_dir():
                path.unlink()

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run for this process; a second process gets a `WorkspaceError`.

        The lock is the kernel's (flock): it ends with the process, however that ends.
        """
        path = self.root / ".lock"
        with writing(path):
            self.root.mkdir(parents=True, exist_ok=True)
            file = path.open("a")
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise WorkspaceError(f"{self.root} is in use by another process") from error
            yield
