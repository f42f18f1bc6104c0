import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from c2am.workspace import (
    TEMPORARY,
    Workspace,
    WorkspaceError,
    atomic,
    read_json,
    read_metadata,
    read_tensors,
    remove_temporaries,
    write_json,
    write_mask,
    write_tensors,
)

ROOT = Path(__file__).parent.parent


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def in_child(function) -> int:
    """Exit code of a forked process in which `function` runs; 9 if it raises."""
    child = os.fork()
    if child == 0:
        try:
            os._exit(function() or 0)
        except BaseException:
            os._exit(9)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_atomic_shows_the_file_only_when_it_is_whole(tmp_path):
    path = tmp_path / "deep" / "file.png"
    with atomic(path) as temporary:
        assert temporary.parent == path.parent
        assert temporary.suffix == ".png"
        temporary.write_bytes(b"whole")
        assert not path.exists()
    assert path.read_bytes() == b"whole"
    assert names(path.parent) == ["file.png"]


def test_atomic_keeps_the_old_file_when_the_block_fails(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), atomic(path) as temporary:
        temporary.write_text(f"new {1 / 0}")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkspaceError, match=r"cannot write .*file/inner/value\.json"):
        write_json(tmp_path / "file" / "inner" / "value.json", {})


@pytest.mark.parametrize("write", [write_tensors, write_mask, write_json])
def test_a_read_only_folder_is_named(tmp_path, write):
    values = {
        write_tensors: {"x": torch.ones(3)},
        write_mask: np.zeros((2, 2), np.uint8),
        write_json: {"x": 1},
    }
    folder = tmp_path / "closed"
    folder.mkdir()
    folder.chmod(0o555)
    for parent in [tmp_path, *tmp_path.parents][:3]:
        os.chmod(parent, 0o755)

    def attempt() -> int:
        if os.getuid() == 0:
            os.setuid(65534)
        try:
            write(folder / "file", values[write])
        except WorkspaceError as error:
            return 0 if f"cannot write {folder / 'file'}" in str(error) else 1
        return 2

    assert in_child(attempt) == 0
    assert names(folder) == []


@pytest.mark.parametrize("kind", ["tensors", "mask", "json"])
def test_a_full_disk_is_named_and_leaves_nothing(tmp_path, kind):
    noise = np.random.default_rng(0).integers(0, 255, (300, 300), dtype=np.uint8)
    path = tmp_path / "file"
    write_json(path, "old")

    def attempt() -> int:
        # A file that may not grow stands for a disk that is full: the same failing write.
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        try:
            if kind == "tensors":
                write_tensors(path, {"x": torch.zeros(100_000)})
            elif kind == "mask":
                write_mask(path, noise)
            else:
                write_json(path, "x" * 100_000)
        except WorkspaceError as error:
            return 0 if f"cannot write {path}" in str(error) else 1
        return 2

    assert in_child(attempt) == 0
    assert read_json(path) == "old"
    assert names(tmp_path) == ["file"]


def test_no_space_left_is_said(tmp_path, monkeypatch):
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WorkspaceError, match=r"value\.json.*No space left"):
        write_json(tmp_path / "value.json", {})
    assert names(tmp_path) == []


def test_leftovers_are_removed_everywhere_below(tmp_path):
    (tmp_path / "val").mkdir()
    for path in (tmp_path / f"{TEMPORARY}1-ab.png", tmp_path / "val" / f"{TEMPORARY}2.png"):
        path.write_text("half")
    (tmp_path / "a.png").write_text("whole")
    assert remove_temporaries(tmp_path) == 2
    assert names(tmp_path) == ["a.png", "val"]


def test_tensors_of_any_layout(tmp_path):
    path = tmp_path / "file.safetensors"
    tensors = {
        "transposed": torch.arange(6).view(2, 3).t(),
        "channels_last": torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "half": torch.rand(3).half(),
        "empty": torch.zeros(0, 4),
        "scalar": torch.tensor(2.5, requires_grad=True),
    }
    write_tensors(path, tensors, {"note": "ü"})
    read = read_tensors(path)
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name], tensor)
    assert read_metadata(path) == {"note": "ü"}


@pytest.mark.parametrize("read", [read_tensors, read_metadata, read_json])
@pytest.mark.parametrize("content", [None, b"", b"{half"])
def test_unreadable_files_are_named(tmp_path, read, content):
    path = tmp_path / "file"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(WorkspaceError, match=f"cannot read {path}"):
        read(path)


def test_nan_is_not_json(tmp_path):
    with pytest.raises(ValueError, match=r"value\.json"):
        write_json(tmp_path / "value.json", {"loss": float("nan")})
    assert names(tmp_path) == []


def test_mask_is_a_palette_image(tmp_path):
    mask = np.array([[0, 1, 255], [20, 2, 3]], np.uint8)
    write_mask(tmp_path / "mask.png", mask)
    with Image.open(tmp_path / "mask.png") as image:
        assert image.mode == "P"
        assert np.array_equal(np.asarray(image), mask)
        colours = np.asarray(image.convert("RGB"))
    assert colours[0].tolist() == [[0, 0, 0], [128, 0, 0], [224, 224, 192]]


@pytest.mark.parametrize("mask", [np.zeros((2, 2), np.int64), np.zeros((2, 2, 1), np.uint8)])
def test_mask_of_another_kind_is_an_error(tmp_path, mask):
    with pytest.raises(ValueError, match="mask: expected"):
        write_mask(tmp_path / "mask.png", mask)


def test_folders_and_manifests(tmp_path):
    workspace = Workspace(tmp_path)
    assert workspace.folder("global_cam") == tmp_path / "global_cam"
    assert workspace.folder("cam", "c2am") == tmp_path / "cam" / "c2am"
    assert workspace.read_manifest("cam", "c2am") is None
    workspace.begin("cam", "c2am", {"fingerprint": "f"}, clear=True)
    assert workspace.read_running("cam", "c2am") == {"fingerprint": "f"}
    workspace.write_manifest("cam", "c2am", {"metrics": {}})
    assert workspace.read_manifest("cam", "c2am") == {"metrics": {}}
    assert workspace.read_running("cam", "c2am") is None


@pytest.mark.parametrize("name", ["..", ".", "", "a/b", "a\\b"])
def test_names_stay_within_the_run(tmp_path, name):
    with pytest.raises(ValueError, match="plain name"):
        Workspace(tmp_path).folder("cam", name)
    with pytest.raises(ValueError, match="plain name"):
        Workspace(tmp_path).folder(name)


def test_begin_clears_what_the_stage_wrote(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept.png").write_text("kept")
    workspace = Workspace(tmp_path / "run")
    folder = workspace.folder("predictions", "cam")
    workspace.begin("predictions", "cam", {"fingerprint": "old"}, clear=True)
    (folder / "val").mkdir()
    for path in ("val/a.png", "b.safetensors", f"{TEMPORARY}1.png"):
        (folder / path).write_text("old")
    (folder / "notes.md").write_text("mine")
    (folder / "linked").symlink_to(outside)
    (folder / "linked.png").symlink_to(outside / "kept.png")
    workspace.begin("predictions", "cam", {"fingerprint": "new"}, clear=True)
    files = sorted(path.name for path in folder.rglob("*") if path.is_file())
    assert files == ["notes.md", "running.json"]
    assert (outside / "kept.png").read_text() == "kept"
    assert workspace.read_running("predictions", "cam") == {"fingerprint": "new"}


def test_begin_keeps_files_and_removes_leftovers(tmp_path):
    workspace = Workspace(tmp_path)
    workspace.begin("cam", "cam", {"fingerprint": "f"}, clear=True)
    folder = workspace.folder("cam", "cam")
    (folder / "a.png").write_text("whole")
    (folder / f"{TEMPORARY}1.png").write_text("half")
    workspace.begin("cam", "cam", {"fingerprint": "f"}, clear=False)
    assert names(folder) == ["a.png", "running.json"]


def test_begin_refuses_files_that_it_does_not_know(tmp_path):
    folder = tmp_path / "cam" / "cam"
    folder.mkdir(parents=True)
    (folder / "a.safetensors").write_text("of someone")
    with pytest.raises(WorkspaceError, match="no stage of this run wrote"):
        Workspace(tmp_path).begin("cam", "cam", {}, clear=True)
    assert names(folder) == ["a.safetensors"]


def test_begin_refuses_to_clear_outside_of_the_run(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "manifest.json").write_text("{}")
    root = tmp_path / "run"
    root.mkdir()
    (root / "classifier").symlink_to(outside)
    with pytest.raises(WorkspaceError, match="out of the run"):
        Workspace(root).begin("classifier", None, {}, clear=True)
    assert names(outside) == ["manifest.json"]


def test_lock_keeps_a_second_process_out(tmp_path):
    script = (
        "import sys\nfrom c2am.workspace import Workspace, WorkspaceError\n"
        "try:\n    with Workspace(sys.argv[1]).lock(): print('free')\n"
        "except WorkspaceError as error: print(error)\n"
    )

    def second() -> str:
        command = [sys.executable, "-c", script, str(tmp_path)]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        return subprocess.check_output(command, env=environment, text=True).strip()

    with Workspace(tmp_path).lock():
        assert second() == f"{tmp_path} is in use by another process"
    assert second() == "free"
