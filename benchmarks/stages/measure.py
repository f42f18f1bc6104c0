"""Runs the providers of the stages in turns and makes the rows of `results/stages.csv`."""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.results import machine, percentiles
from benchmarks.runner import best_device
from benchmarks.stages import PER_IMAGE, TRAINED, data
from benchmarks.stages.child import METHOD
from benchmarks.stages.providers import providers
from benchmarks.stages.recorder import WARM, images_of_window
from c2am.config import PipelineConfig
from c2am.parsing import dump_config, load_config


@dataclass(frozen=True)
class Row:
    """One line of the table. `docs/performance.md` says what the columns mean."""

    benchmark: str
    setting: str
    provider: str
    ranks: int
    threads: int
    p20_images_s: float
    p50_images_s: float
    p80_images_s: float
    windows: int
    baseline: str
    ratio: float
    ratio_least: float
    ratio_most: float
    startup_s: float
    compile_s: float
    peak_mb: float
    gflop_per_image: float | str
    matmul_gflop_s: float | str
    isa: str
    device: str
    torch: str
    c2am: str
    revision: str
    date: str


@dataclass(frozen=True)
class Way:
    """A provider on a number of ranks and threads."""

    provider: str
    ranks: int
    threads: int


@dataclass(frozen=True)
class Plan:
    """What to measure."""

    recipe: str
    stages: tuple[str, ...]
    options: tuple[str, ...]
    """Options of the recipe, as on the command line of `c2am.train`."""
    marks: int
    """Windows of a process."""
    rounds: int
    images: int
    """JPEGs to draw, at least; per-image stages may need more for their windows."""
    threads: int
    ranks: int
    """Beside one process, so many of one thread each, and one of one thread; 1 leaves both out."""
    providers: tuple[str, ...] = ()
    """The ways to run a stage; empty: all of them."""


def measure(
    plan: Plan, say: Any = print, keep: Callable[[list[Row]], object] = lambda rows: None
) -> list[Row]:
    """The rows of all stages of a plan; `keep` gets those of a stage whenever there is more."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="c2am-stages-") as folder:
        root = Path(folder)
        config = _config(plan, root)
        count = max(plan.images, images_needed(plan, config))
        size = data.write_dataset(root / "images", count)
        recipe = root / "recipe.yaml"
        recipe.write_text(dump_config(config), encoding="utf-8")
        say(f"{count} JPEGs of 500 x 375, {size / 1e3:.0f} kB each; stages before: one step")
        _prepare(plan, root)
        for stage in plan.stages:
            ways = _ways(stage, plan, config)
            results: dict[Way, list[dict]] = {way: [] for way in ways}
            of_stage: list[Row] = []
            for number in range(plan.rounds):
                for way in ways:
                    say(f"{stage}: {way.provider}, {way.ranks} x {way.threads}, round {number + 1}")
                    results[way].append(_child(root, recipe, stage, way, plan))
                    of_stage = _rows(stage, _setting(stage, config), results)
                    keep(of_stage)
            rows += of_stage
    return rows


def _config(plan: Plan, root: Path) -> PipelineConfig:
    weights = [f"--{stage}.weights=none" for stage in TRAINED]  # as fast as trained ones
    folder = ["--data.kind=folder", f"--data.root={root / 'images'}", f"--data.threads={_cores()}"]
    lists = [f"--data.{name}=train" for name in ("train_list", "score_list", "val_list")]
    rest = [f"--methods={METHOD}", "--name=run", f"--workspace={root}", "--report.gallery=0"]
    window = 10 if best_device().type == "cuda" else 1
    logs = [
        f"--{stage}.{name}"
        for stage in (*TRAINED, "front_door")
        for name in (f"log_every={window}", "checkpoint_every=1000000", "steps=1000000", "lr=1e-9")
    ]
    heads = [f"--{stage}.head_lr=1e-9" for stage in (*TRAINED, "front_door")]
    rest.append("--pseudo_masks.threshold=0.2")
    if best_device().type == "cpu":  # a step of 16 crops takes a processor half a minute
        rest += [*(f"--{stage}.batch_size=4" for stage in TRAINED), "--cam.batch_size=1"]
    return load_config(
        plan.recipe, [*weights, *folder, *lists, *rest, *logs, *heads, *plan.options]
    )


def images_needed(plan: Plan, config: PipelineConfig) -> int:
    """So many that no rank is through with its share before it has all of its windows."""
    windows = (
        ranks * images_of_window(stage, config, best_device(), threads)
        for stage in plan.stages
        for ranks, threads in ((1, plan.threads), (plan.ranks, 1))
        if stage in PER_IMAGE
    )
    return (plan.marks + WARM + 1) * max(windows, default=0)


def _prepare(plan: Plan, root: Path) -> None:
    """What the stages of the plan read: those before the last of them, trained for one step."""
    order = ("classifier", "cam", "irn_labels", "irn", "pseudo_masks")
    needs = {"irn": 3, "irn_labels": 2, "cam": 1, "pseudo_masks": 4, "segmenter": 5}
    wanted = order[: max(needs.get(stage, 0) for stage in plan.stages)]
    if not wanted:
        return
    steps = [f"--{stage}.steps=1" for stage in TRAINED]
    words = ["--recipe", str(root / "recipe.yaml"), *steps, "--stages", ",".join(wanted)]
    _call([sys.executable, "-m", "c2am.train", *words], _cores())


def _ways(stage: str, plan: Plan, config: PipelineConfig) -> list[Way]:
    """The baseline first: a row needs its rates."""
    names = [
        name
        for name in providers(stage, config.classifier.backbone)
        if not plan.providers or name in plan.providers
    ]
    if not names:
        return []
    first = _baseline_name(names)
    names.sort(key=lambda name: name != first)
    ways = [Way(name, 1, plan.threads) for name in names]
    if plan.ranks > 1 and "whole" in names:
        ways += [Way("whole", 1, 1), Way("whole", plan.ranks, 1)]
    return ways


def _child(root: Path, recipe: Path, stage: str, way: Way, plan: Plan) -> dict[str, Any]:
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={way.ranks}"]
    launcher = torchrun if way.ranks > 1 else []
    words = ["-m", "benchmarks.stages.child", str(recipe), stage, way.provider, "measured"]
    try:
        out = _call([sys.executable, *launcher, *words, "--marks", str(plan.marks)], way.threads)
    finally:
        shutil.rmtree(root / "run" / "measured", ignore_errors=True)
    return json.loads(out.splitlines()[-1])


def _call(words: Sequence[str], threads: int) -> str:
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(words)}:\n{done.stdout}{done.stderr}")
    return done.stdout


def _setting(stage: str, config: PipelineConfig) -> str:
    section = getattr(config, stage)
    if stage in TRAINED:
        return f"{section.backbone}, crop {section.crop}, batch {section.batch_size}"
    if stage == "cam":
        scales = "/".join(f"{scale:g}" for scale in section.scales)
        mirror = " mirrored" if section.flip else ""
        return f"{config.classifier.backbone}, 500x375 at {scales}{mirror}"
    return "500x375"


def _rows(stage: str, setting: str, results: dict[Way, list[dict]]) -> list[Row]:
    """Of what has been measured so far: of each way whose baseline has been, too."""
    counted = [each for rounds in results.values() for each in rounds if each["gflop_per_image"]]
    rows = []
    for way, rounds in results.items():
        base = _baseline(way, list(results))
        if not rounds or not results[base]:
            continue
        medians, others = (
            [statistics.median(each["rates"]) for each in results[w]] for w in (way, base)
        )
        ratios = [own / other for own, other in zip(medians, others, strict=False)]
        rates = [rate for each in rounds for rate in each["rates"]]
        p20, p50, p80 = (round(value, 3) for value in percentiles(rates))
        row = Row(
            benchmark=stage,
            setting=setting,
            provider=way.provider,
            ranks=way.ranks,
            threads=way.threads,
            p20_images_s=p20,
            p50_images_s=p50,
            p80_images_s=p80,
            windows=len(rates),
            baseline=f"{base.provider} {base.ranks}x{base.threads}",
            ratio=round(statistics.median(ratios), 3),
            ratio_least=round(min(ratios), 3),
            ratio_most=round(max(ratios), 3),
            startup_s=round(min(each["startup_s"] for each in rounds), 2),
            compile_s=round(max(each["compile_s"] for each in rounds), 2),
            peak_mb=round(max(each["peak_memory"] for each in rounds) / 1e6, 1),
            gflop_per_image=round(counted[0]["gflop_per_image"], 2) if counted else "",
            matmul_gflop_s=round(max(e["matmul_gflop_s"] for e in counted), 1) if counted else "",
            **machine(),
        )
        rows.append(row)
    return rows


def _baseline(way: Way, ways: list[Way]) -> Way:
    """Of several ranks: one rank of as many threads; else the published loop, or the network."""
    if way.ranks > 1:
        return Way(way.provider, 1, way.threads)
    wanted = _baseline_name([other.provider for other in ways])
    return next(other for other in ways if other.provider == wanted)


def _baseline_name(names: list[str]) -> str:
    return next((name for name in ("eager", "network", "whole") if name in names), names[0])


def _cores() -> int:
    return len(os.sched_getaffinity(0))
