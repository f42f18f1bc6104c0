"""The benchmark of the stages: clocks, peers, estimate, table, and one stage in its processes."""

import math
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import results, table
from benchmarks.__main__ import main
from benchmarks.stages import child, data, estimate, measure, peers, recorder
from benchmarks.stages import table as stages_table
from c2am.config import ClassifierConfig
from c2am.data.folder import FolderDataset
from c2am.data.loader import TrainLoader
from c2am.models import build_classifier
from c2am.normalization import Normalization
from c2am.parsing import load_config

CPU = torch.device("cpu")
NO_WEIGHTS = ClassifierConfig(backbone="resnet18", weights="none")
RECIPE = Path(__file__).with_name("tiny.yaml")


def test_rates_leave_the_first_windows_out(monkeypatch):
    clock = iter([0.0, 9.0, 10.0, 11.0, 13.0, 14.0])
    monkeypatch.setattr(recorder.time, "perf_counter", lambda: next(clock))
    recorded = recorder.Recorder(batch_size=4, marks=2)
    with pytest.raises(ValueError, match="too few images"):
        recorded.rates()
    for step in range(1, 6):
        recorded.log(step, {})
    assert recorded.rates() == [2.0, 4.0]
    assert recorded.startup() == pytest.approx(9 - 4 / 4.0)
    with pytest.raises(recorder.EnoughError):
        recorded.log(6, {})


def test_images_are_counted_by_the_window(monkeypatch):
    clock = iter([0.0, 1.0, 2.0, 3.0, 4.0, 6.0])
    monkeypatch.setattr(recorder.time, "perf_counter", lambda: next(clock))
    recorded = recorder.Recorder(0, marks=2, window=4)
    for images in (3, 1, 2, 5, 4, 4, 8, 3):
        recorded.add(images)
    assert recorded.rates() == [4.0, 4.0]
    with pytest.raises(recorder.EnoughError):
        recorded.add(1)


def test_every_rank_has_images_for_its_windows():
    """Jobs of two cores, or of one of two ranks: as many images as four or three jobs, twice."""
    config = SimpleNamespace(cam=SimpleNamespace(batch_size=5))
    plan = SimpleNamespace(stages=("irn", "irn_labels"), marks=4, ranks=2, threads=2)
    assert measure.images_needed(plan, config) == 8 * max(2 * 4, 2 * 2 * 3)
    plan.ranks, plan.stages = 1, ("pseudo_masks",)
    assert measure.images_needed(plan, config) == 8 * 2 * 4 * 5
    plan.stages = ("classifier",)
    assert measure.images_needed(plan, config) == 0


def test_rates_of_ranks_add_up(monkeypatch):
    assert child.of_all_ranks([1.0, 2.0], 3, CPU) == [1.0, 2.0]
    other = torch.tensor([10.0, math.nan, math.nan], dtype=torch.float64)
    monkeypatch.setattr(child.distributed, "all_reduce_sum", lambda own: own + other)
    assert child.of_all_ranks([1.0, 2.0], 3, CPU) == [11.0]


def test_compile_time_is_that_of_the_backward_too():
    squared = torch.compile(lambda x: (x * x).sin(), backend="aot_eager")
    before = child.compile_seconds()
    out = squared(torch.ones(3, requires_grad=True))
    forward = child.compile_seconds()
    out.sum().backward()
    assert before < forward < child.compile_seconds()


def test_dataset_has_vocs_sizes_and_every_class(tmp_path):
    size = data.write_dataset(tmp_path / "images", 24)
    dataset = FolderDataset(tmp_path / "images")
    ids = dataset.ids("train")
    assert {dataset.size(image_id) for image_id in ids} == set(data.SIZES)
    assert len(dataset.classes) == 20
    assert size == np.mean([dataset.image_path(i).stat().st_size for i in ids]).astype(int)


@pytest.mark.parametrize("crop", [peers.pil_crop, peers.v2_crop])
@pytest.mark.parametrize("long", [40.0, 90.0])  # the crop reaches outside, or does not
def test_peers_see_what_we_see(tmp_path, crop, long):
    path = tmp_path / "grey.png"
    Image.new("RGB", (60, 40), (100, 100, 100)).save(path)
    config = ClassifierConfig(crop=48, resize_long=(long, long))
    out = crop(path, config, Normalization((90.0, 90.0, 90.0), (20.0, 20.0, 20.0)))
    assert out.shape == (3, 48, 48)
    assert out.dtype == torch.float32
    inside = torch.isclose(out, torch.tensor(0.5), atol=1e-3).float().mean().item()
    width, height = min(48, long), min(48, round(long * 2 / 3))
    assert inside == pytest.approx(width * height / 48**2)


@pytest.mark.parametrize("loop", [peers.eager, peers.torchvision_v2])
def test_peers_train_what_we_train(tmp_path, loop):
    """The same features and parameters; every step is noted."""
    config = ClassifierConfig(
        backbone="resnet18", batch_size=2, crop=64, resize_long=(40.0, 90.0), log_every=1
    )
    data.write_dataset(tmp_path / "images", 4)
    dataset = FolderDataset(tmp_path / "images")
    kind = {"normalization": Normalization((90.0,) * 3, (50.0,) * 3), "seed": 0, "threads": 1}
    loader = TrainLoader(dataset, dataset.ids("train"), config, device=CPU, **kind)
    recorded = recorder.Recorder(batch_size=2, marks=1)
    with pytest.raises(recorder.EnoughError):
        loop(None, loader, config, events=recorded, device=CPU, folder=tmp_path, profile=0)
    assert len(recorded.rates()) == 1
    net, own = peers.PlainClassifier(config, 5), build_classifier(NO_WEIGHTS, 5)
    assert net.layers(net.stem(torch.zeros(1, 3, 64, 64))).shape == (1, 512, 4, 4)
    trained = [sum(p.numel() for p in n.parameters() if p.requires_grad) for n in (net, own)]
    assert trained[0] == trained[1]


def test_estimate_follows_the_recipe():
    config = load_config("voc12-fixed")
    rates = dict.fromkeys(("classifier", "cam", "irn_labels", "irn", "pseudo_masks"), 10.0)
    found = estimate.minutes(config, rates)
    assert found["cam"] == found["global_cam"] == pytest.approx(10582 / 600)
    assert found["classifier"] == pytest.approx(config.classifier.epochs * 10582 / 600)
    assert estimate.minutes(config, {"cam": 1.0}) is None


def row(**values: object) -> measure.Row:
    common = {
        "benchmark": "classifier",
        "setting": "resnet50",
        "provider": "whole",
        "ranks": 1,
        "threads": 2,
        "p20_images_s": 7.0,
        "p50_images_s": 8.0,
        "p80_images_s": 9.0,
        "windows": 24,
        "baseline": "eager 1x2",
        "ratio": 2.5,
        "ratio_least": 2.0,
        "ratio_most": 3.0,
        "startup_s": 1.5,
        "compile_s": 0.5,
        "peak_mb": 100.0,
        "gflop_per_image": 50.0,
        "matmul_gflop_s": 800.0,
    }
    return measure.Row(**(common | results.machine() | values))


def test_table_says_what_the_rows_say(tmp_path):
    stages = ("classifier", "cam", "irn_labels", "irn", "pseudo_masks")
    results.write_rows(tmp_path / "stages.csv", [row(benchmark=stage) for stage in stages])
    text = stages_table.markdown(results.read_rows(tmp_path / "stages.csv"))
    cells = "8 (7 to 9) | 2.5 (2.0 to 3.0) | eager 1x2 | 1.5 | 0.5 | 100.0 | 400 | 50%"
    assert f"| classifier (resnet50) | whole | 1 x 2 | {cells} |" in text
    assert "**Estimate**, not a measurement" in text
    assert "loading is" not in text


def test_table_compares_the_parts_of_a_stage():
    speeds = {"whole": 9.0, "loading": 40.0, "network": 10.0}
    rows = [row(provider=name, p50_images_s=speed) for name, speed in speeds.items()]
    rows += [row(ranks=2, threads=1, p50_images_s=1.0)]
    (said,) = stages_table.shares([{k: str(v) for k, v in asdict(r).items()} for r in rows])
    assert "loading is 4 times as fast as the network alone, the whole reaches 90% of it" in said


def test_docs_have_the_table_of_the_recorded_stages():
    document = table.DOCUMENT.read_text(encoding="utf-8")
    rows = results.read_rows(results.FOLDER / "stages.csv")
    expected = table.updated(document, "stages", stages_table.markdown(rows))
    assert expected == document, "run python -m benchmarks table"


@pytest.mark.timeout(300)
def test_a_stage_is_timed_whole_and_in_parts(tmp_path, capsys):
    words = ["--recipe", str(RECIPE), "--stage", "classifier", "--windows", "2", "--rounds", "1"]
    words += ["--images", "20", "--output", str(tmp_path / "stages.csv")]
    main(
        [
            "stages",
            *words,
            "--classifier.backbone",
            "efficientnet_lite0",
            "--threads",
            "1",
            "--ranks",
            "1",
        ]
    )
    rows = {row["provider"]: row for row in results.read_rows(tmp_path / "stages.csv")}
    assert rows.keys() == {"whole", "loading", "network"}
    assert all(float(row["p50_images_s"]) > 0 for row in rows.values())
    assert float(rows["network"]["gflop_per_image"]) > 0.01
    assert rows["whole"]["baseline"] == "network 1x1"
    assert "classifier" in capsys.readouterr().out


def test_options_of_the_recipe_are_checked(tmp_path):
    with pytest.raises(ValueError, match="no_such_option"):
        main(["stages", "--recipe", str(RECIPE), "--stage", "classifier", "--no_such_option", "1"])


def test_several_ranks_are_compared_with_one_thread():
    plan = SimpleNamespace(threads=2, ranks=2, providers=())
    config = SimpleNamespace(classifier=SimpleNamespace(backbone="efficientnet_lite0"))
    ways = measure._ways("classifier", plan, config)
    two = measure.Way("whole", 2, 1)
    assert ways[-2:] == [measure.Way("whole", 1, 1), two]
    assert measure._baseline(two, ways) == measure.Way("whole", 1, 1)
    assert ways[0].provider == measure._baseline(ways[1], ways).provider == "network"
    plan.providers = ("network",)
    assert measure._ways("pseudo_masks", plan, config) == []
    plan.providers = ("whole", "loading")
    assert {way.provider for way in measure._ways("classifier", plan, config)} == {
        "whole",
        "loading",
    }


def test_rows_of_what_is_measured_so_far():
    """A way appears once its baseline is measured; a round that one of them lacks is left out."""
    result = {"rates": [2.0, 4.0], "startup_s": 1.0, "compile_s": 0.0, "peak_memory": 1e6}
    result |= {"gflop_per_image": None, "matmul_gflop_s": None}
    network, whole = (measure.Way(name, 1, 1) for name in ("network", "whole"))
    rows = measure._rows("cam", "500x375", {network: [], whole: [result]})
    assert rows == []
    faster = result | {"rates": [6.0]}
    found = measure._rows("cam", "500x375", {network: [result, result], whole: [faster]})
    assert [(row.provider, row.ratio, row.windows) for row in found] == [
        ("network", 1.0, 4),
        ("whole", 2.0, 1),
    ]
