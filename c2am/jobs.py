"""The stages and their jobs: which needs which, and what the files of each depend on."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from c2am.config import PipelineConfig
from c2am.data import DataError, Dataset
from c2am.methods import Method, build_method
from c2am.provenance import fingerprint, images_fingerprint, masks_fingerprint, section


@dataclass(frozen=True)
class Stage:
    """A row of the table of stages."""

    name: str
    needs: tuple[str, ...]
    """Stages whose files it reads."""
    sections: tuple[str, ...]
    """Sections of the configuration that its files depend on."""
    lists: tuple[str, ...] = ()
    """Fields of the section `data`: the lists that it works through, one image at a time, beside
    the training list. Another list only adds files to it."""
    scored: bool = False
    """Its metrics are scores: when masks or the section `evaluation` change, it is scored again."""
    per_method: bool = True
    always: bool = False
    """It is cheap and shows whatever there is: never skipped, never refused."""


STAGES = (
    Stage("classifier", (), ("classifier",), per_method=False),
    Stage("global_cam", ("classifier",), ("global_cam", "cam"), per_method=False),
    Stage("front_door", ("classifier", "global_cam"), ("front_door",)),
    Stage("cam", ("front_door",), ("cam",), ("score_list", "val_list"), scored=True),
    Stage("irn_labels", ("cam",), ("irn_labels",)),
    Stage("irn", ("irn_labels",), ("irn",)),
    Stage("pseudo_masks", ("cam", "irn"), ("pseudo_masks",), ("score_list",), scored=True),
    Stage("segmenter", ("classifier", "pseudo_masks"), ("segmenter",)),
    Stage(
        "predictions",
        ("classifier", "segmenter"),
        ("predictions",),
        ("val_list", "test_list"),
        scored=True,
    ),
    Stage("report", (), ("report",), per_method=False, always=True),
)
STAGE_NAMES = tuple(stage.name for stage in STAGES)


@dataclass(frozen=True)
class Job:
    """A stage, of one method unless all share it."""

    stage: Stage
    method: str | None

    @property
    def key(self) -> tuple[str, str | None]:
        """Stage and method, as the workspace takes them."""
        return self.stage.name, self.method

    def __str__(self) -> str:
        return f"{self.stage.name}/{self.method}" if self.method else self.stage.name


class Jobs:
    """The jobs of a run, in the order in which they run."""

    def __init__(self, config: PipelineConfig, dataset: Dataset) -> None:
        self.config, self.dataset = config, dataset
        self.methods: dict[str, Method] = {
            name: build_method(name, config.front_door) for name in config.methods
        }
        self._fingerprints: dict[Job, str] = {}
        self._images: dict[str, str] = {}

    def __iter__(self) -> Iterator[Job]:
        for stage in STAGES:
            if not stage.per_method:
                yield Job(stage, None)
                continue
            for name, method in self.methods.items():
                if stage.name != "front_door" or method.trains:
                    yield Job(stage, name)

    def unneeded(self) -> set[str]:
        """Shared stages that no method of this run reads, itself or by way of another stage."""
        read: set[str] = set()
        for job in reversed(list(self)):
            if job.stage.per_method or job.stage.name in read:
                read.update(need.stage.name for need in self.needs(job))
        return {"classifier", "global_cam"} - read

    def needs(self, job: Job) -> list[Job]:
        """The jobs whose files `job` reads."""
        found = []
        for name in job.stage.needs:
            for method in self.methods if job.method is None else [job.method]:
                found += self._need(job, name, method)
        return list(dict.fromkeys(found))

    def _need(self, job: Job, name: str, method: str) -> list[Job]:
        own = self.methods[method]
        if job.stage.name == "front_door":
            wanted = own.needs | {own.starts_from}
            if name not in wanted:
                return []
        if name == "classifier" and not self._reads_classifier(job.stage):
            return []
        if name == "front_door" and not own.trains:
            name = "classifier"  # the baseline as it is
        stage = STAGES[STAGE_NAMES.index(name)]
        return [Job(stage, method if stage.per_method else None)]

    def _reads_classifier(self, stage: Stage) -> bool:
        config = self.config
        optional = {
            "segmenter": config.segmenter.starts_from_classifier,
            "predictions": config.predictions.classifier_weight > 0,
        }
        return optional.get(stage.name, True)

    def fingerprint(self, job: Job) -> str:
        """What the files of `job` depend on, but for the images of its own lists."""
        if job not in self._fingerprints:
            inputs = {str(need): self.fingerprint(need) for need in self.needs(job)}
            self._fingerprints[job] = fingerprint(
                {"seed": self.config.seed, "stage": str(job), "inputs": inputs}
                | {"data": section(self.config, "data")}
                | {"images": self._list(self.config.data.train_list)}
                | {"config": {name: section(self.config, name) for name in job.stage.sections}}
                | {"chosen_by": self._scoring(job) if self._chooses(job) else None}
            )
        return self._fingerprints[job]

    def images(self, job: Job) -> dict[str, str]:
        """The lists that `job` works through beside the training list, with their fingerprints."""
        names = (getattr(self.config.data, field) for field in job.stage.lists)
        return {name: self._list(name) for name in names if name is not None}

    def _list(self, name: str) -> str:
        if name not in self._images:
            self._images[name] = images_fingerprint(self.dataset, self.dataset.ids(name))
        return self._images[name]

    def made(self, job: Job, record: Mapping[str, Any]) -> bool:
        """Whether the files that `record`, a manifest or a running note, speaks of can be kept."""
        known = record.get("images", {})
        same = all(known.get(name, now) == now for name, now in self.images(job).items())
        fits = record.get("streamed") in (None, self.labels(job))
        return same and fits and record.get("fingerprint") == self.fingerprint(job)

    def labels(self, job: Job) -> str | None:
        """Of stage `cam`: the fingerprint of the labels that its pass can make."""
        if job.stage.name != "cam":
            return None
        return self.fingerprint(Job(STAGES[STAGE_NAMES.index("irn_labels")], job.method))

    def check_images(self, job: Job) -> None:
        """Refuse to make files anew because of an image that is merely gone.

        Raises:
            DataError: an image of the lists that `job` reads is missing.
        """
        for name in {self.config.data.train_list, *self.images(job)}:
            for image_id in self.dataset.ids(name):
                path = self.dataset.image_path(image_id)
                if not path.exists():
                    raise DataError(f"{path}: no such file; the files of {job} are kept")

    def serves(self, need: Job, record: Mapping[str, Any], job: Job) -> bool:
        """Whether `need`, whose manifest is `record`, has all the files that `job` reads."""
        lists = self.images(need).keys() & self.images(job).keys()
        return self.made(need, record) and lists <= record["images"].keys()

    def scoring(self, job: Job) -> str:
        """What the metrics of `job`, and which files it has, depend on beside what is in them."""
        return fingerprint(self._scoring(job))

    def _scoring(self, job: Job) -> dict[str, Any]:
        if not job.stage.scored:
            return {}
        dataset, lists = self.dataset, self.images(job)
        return {
            "evaluation": section(self.config, "evaluation"),
            "lists": [getattr(self.config.data, field) for field in job.stage.lists],
            "images": lists,
            "masks": {name: masks_fingerprint(dataset, dataset.ids(name)) for name in lists},
        }

    def _chooses(self, job: Job) -> bool:
        best = self.config.pseudo_masks.threshold == "best"
        return job.stage.name == "pseudo_masks" and best
