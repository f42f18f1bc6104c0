"""The whole pipeline, as a user runs it: one process, several, killed, and on own data."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageOps

from c2am.data import read_mask
from c2am.workspace import Workspace, read_tensors

RECIPE = Path(__file__).parent / "tiny.yaml"
ORIENTATION = 0x0112  # EXIF tag; 6 is a quarter turn
STAGES_PER_METHOD = ("cam", "irn_labels", "irn", "pseudo_masks", "segmenter", "predictions")

pytestmark = pytest.mark.timeout(600)


def command(workspace: Path, *options: str) -> list[str]:
    run = ["-m", "c2am.train", "--recipe", str(RECIPE), "--workspace", str(workspace)]
    return [*run, *options]


def environment() -> dict[str, str]:
    # One thread: sums in the same order, so that runs can be compared bit for bit.
    return os.environ | {"OMP_NUM_THREADS": "1"}


def train(workspace: Path, *options: str, launcher: tuple[str, ...] = ()) -> Workspace:
    words = [sys.executable, *launcher, *command(workspace, *options)]
    done = subprocess.run(words, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (root,) = (path.parent for path in workspace.glob("*/config.yaml"))
    return Workspace(root)


def files(workspace: Workspace, *patterns: str) -> dict[str, Path]:
    found = [path for pattern in patterns for path in workspace.root.glob(pattern)]
    return {str(path.relative_to(workspace.root)): path for path in sorted(found)}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A run that nothing disturbed."""
    return train(tmp_path_factory.mktemp("whole"))


def test_every_stage_leaves_its_files(finished: Workspace) -> None:
    for method in ("cam", "c2am"):
        for stage in STAGES_PER_METHOD:
            assert finished.read_manifest(stage, method), f"{stage}/{method}"
    masks = files(finished, "pseudo_masks/*/*.png", "predictions/*/val*/*.png")
    assert len(masks) == 2 * 12 + 2 * 3 * 6  # val, val_given, val_crf
    for path in masks.values():
        assert read_mask(path).max() <= 8
    html = (finished.folder("report") / "index.html").read_text()
    assert "Global CAM" in html


def test_scores_are_fractions_of_a_stated_list(finished: Workspace) -> None:
    for method in ("cam", "c2am"):
        seed = finished.read_manifest("cam", method)["metrics"]
        mask = finished.read_manifest("pseudo_masks", method)["metrics"]
        final = finished.read_manifest("predictions", method)["metrics"]
        scores = [seed["score"], seed["val"], mask["score"], final["val"], final["val_crf"]]
        for score in scores:
            assert 0 < score["miou"] < 1
            assert len(score["iou"]) == 9
        best = max(miou for _, miou in seed["curve"])
        assert seed["score"]["miou"] == pytest.approx(best)


def test_a_second_run_does_nothing(finished: Workspace) -> None:
    before = {name: path.stat().st_mtime_ns for name, path in files(finished, "*/*/*").items()}
    train(finished.root.parent)
    after = {name: path.stat().st_mtime_ns for name, path in files(finished, "*/*/*").items()}
    assert before == after


def test_the_training_lists_masks_are_not_read(finished: Workspace, tmp_path: Path) -> None:
    """Weak supervision: without the training list's masks the networks come out the same."""
    workspace = train(
        tmp_path, "--methods", "[cam]", "--pseudo_masks.threshold", "0.3", "--stages", "classifier"
    )
    for path in (workspace.root / "data").rglob("SegmentationClass/*.png"):
        path.unlink()
    stages = "classifier,cam,irn_labels,irn,pseudo_masks,segmenter"
    options = ("--methods", "[cam]", "--pseudo_masks.threshold", "0.3", "--stages", stages)
    train(tmp_path, *options)
    for stage in ("irn", "segmenter"):
        assert (workspace.folder(stage, "cam") / "weights.safetensors").exists()
    same = "irn/cam/weights.safetensors"
    assert (workspace.root / same).read_bytes() == (finished.root / same).read_bytes()


def test_two_processes_equal_one(finished: Workspace, tmp_path: Path) -> None:
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    two = train(tmp_path, launcher=launcher)
    weights = files(finished, "**/weights.safetensors")
    assert weights
    for name, path in weights.items():
        one, other = read_tensors(path), read_tensors(two.root / name)
        for key, value in one.items():
            torch.testing.assert_close(
                other[key], value, rtol=1e-3, atol=1e-4, msg=lambda m, k=(name, key): f"{k}: {m}"
            )
    masks = files(finished, "pseudo_masks/*/*.png", "predictions/*/*/*.png")
    differing = [
        float(np.mean(read_mask(path) != read_mask(two.root / name)))
        for name, path in masks.items()
    ]
    assert np.mean(differing) < 0.005


def kill_when_there(workspace: Path, pattern: str, delay: float) -> None:
    """SIGKILL a run `delay` seconds after a file of that name is there."""
    process = subprocess.Popen(
        [sys.executable, *command(workspace)],
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not any(workspace.glob(f"tiny/{pattern}")) and process.poll() is None:
        time.sleep(0.01)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the run ended before it was killed"


def test_killed_and_resumed_equals_undisturbed(finished: Workspace, tmp_path: Path) -> None:
    """SIGKILL at random points, several times; the end is bit for bit the same."""
    chance = random.Random(0)
    for pattern in (
        "classifier/checkpoint-*",
        "irn_labels/cam/*.png",
        "segmenter/cam/checkpoint-*",
        "predictions/cam/*/*.png",
    ):
        kill_when_there(tmp_path, pattern, delay=chance.uniform(0, 0.5))
    resumed = train(tmp_path)
    patterns = (
        "**/weights.safetensors",
        "cam/*/*.safetensors",
        "irn_labels/*/*.png",
        "pseudo_masks/*/*.png",
        "predictions/*/*/*.png",
    )
    expected = files(finished, *patterns)
    assert files(resumed, *patterns).keys() == expected.keys()
    for name, path in expected.items():
        assert (resumed.root / name).read_bytes() == path.read_bytes(), name


def save_oddly(image: Image.Image, folder: Path, name: str, kind: int) -> None:
    """As people's folders have images: of one channel, of four, deeper, turned, in a palette."""
    if kind == 1:
        image.convert("L").save(folder / f"{name}.png")
    elif kind == 2:
        image.convert("CMYK").save(folder / f"{name}.jpg", quality=95)
    elif kind == 3:
        grey = np.asarray(image.convert("L")).astype(np.uint16) * 257
        Image.fromarray(grey).save(folder / f"{name}.png")
    elif kind == 4:
        exif = Image.Exif()
        exif[ORIENTATION] = 6
        image.save(folder / f"{name}.jpg", quality=95, exif=exif)
    elif kind == 5:
        image.convert("P").save(folder / f"{name}.png")
    else:
        image.save(folder / f"{name}.png")


def draw_own_data(root: Path) -> None:
    """Ten images of circles, squares and bars, and a CSV that names what is in them."""
    (root / "images").mkdir(parents=True)
    lines = ["image_id,labels"]
    for index in range(10):
        image = Image.new("RGB", (80 + index, 64), (40, 90 + 10 * index, 60))
        draw = ImageDraw.Draw(image)
        kinds = ["circle", "square", "bar"]
        labels = {kinds[index % 3], kinds[(index + index // 3) % 3]}
        if "circle" in labels:
            draw.ellipse((5, 10, 35, 40), fill=(220, 30, 30))
        if "square" in labels:
            draw.rectangle((45, 20, 70, 45), fill=(30, 30, 230))
        if "bar" in labels:
            draw.rectangle((5, 50, 75, 58), fill=(230, 230, 30))
        save_oddly(image, root / "images", f"mine_{index}", kind=index)
        lines.append(f"mine_{index},{' '.join(sorted(labels))}")
    (root / "labels.csv").write_text("\n".join(lines) + "\n")


def test_own_folder_of_ten_images(tmp_path: Path) -> None:
    draw_own_data(tmp_path / "mine")
    own = ("--data.kind", "folder", "--data.root", str(tmp_path / "mine"))
    workspace = train(tmp_path / "runs", *own, "--pseudo_masks.threshold", "0.3")
    manifest = json.loads((workspace.folder("predictions", "c2am") / "manifest.json").read_text())
    assert manifest["metrics"].get("val") is None, "there is no truth to score against"
    for stage in ("pseudo_masks/c2am", "predictions/c2am/val"):
        masks = list((workspace.root / stage).glob("*.png"))
        assert len(masks) == 10
        for path in masks:
            mask = read_mask(path)
            assert mask.max() <= 3
            (source,) = (tmp_path / "mine" / "images").glob(f"{path.stem}.*")
            with Image.open(source) as image:
                displayed = ImageOps.exif_transpose(image)
            assert mask.shape == (displayed.height, displayed.width)
    assert (workspace.folder("report") / "index.html").exists()


def test_what_a_late_stage_cannot_do_is_refused_at_once(tmp_path: Path) -> None:
    """Without masks no threshold can be found: said before anything is trained."""
    draw_own_data(tmp_path / "mine")
    own = ("--data.kind", "folder", "--data.root", str(tmp_path / "mine"))
    words = [sys.executable, *command(tmp_path / "runs", *own)]
    done = subprocess.run(words, env=environment(), capture_output=True, text=True)
    assert done.returncode == 2
    assert "pseudo_masks.threshold" in done.stdout + done.stderr
    assert not (tmp_path / "runs" / "tiny" / "classifier").exists()


def test_import_is_light() -> None:
    """`import c2am` costs less than 0.3 s beyond torch's own import."""
    code = (
        "import time, torch; t = time.perf_counter(); import c2am; print(time.perf_counter() - t)"
    )
    times = []
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        times.append(float(done.stdout))
        time.sleep(0.1)
    assert min(times) < 0.3
