"""The configuration of a run: one dataclass per stage, composed into `PipelineConfig`.

A recipe (`recipes/*.yaml`) sets the fields, the command line overrides them, and every range
is checked when a config is built, so a bad value stops a run before it starts.
"""

import re
from dataclasses import dataclass, field
from typing import Literal

Range = tuple[float, float]
BackboneName = Literal["resnet50", "resnet18", "resnet101", "resnet101_caffe", "efficientnet_lite0"]
Precision = Literal["auto", "float32", "bfloat16"]


def _check(config: object, condition: bool, name: str, expected: str) -> None:
    if not condition:
        words = re.findall("[A-Z][a-z]+", type(config).__name__.removesuffix("Config"))
        section = "" if isinstance(config, PipelineConfig) else "_".join(words).lower() + "."
        raise ValueError(f"{section}{name} = {getattr(config, name)!r}: expected {expected}")


def _check_positive(config: object, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        _check(config, value is None or value > 0, name, "a number above 0")


def _check_not_negative(config: object, *names: str) -> None:
    for name in names:
        _check(config, getattr(config, name) >= 0, name, "a number of at least 0")


def _check_range(config: object, name: str) -> None:
    value = getattr(config, name)
    ordered = value is None or 0 < value[0] <= value[1]
    _check(config, ordered, name, "two positive numbers, the smaller first")


def _check_scales(config: object, scales: tuple[float, ...]) -> None:
    _check(config, bool(scales) and min(scales) > 0, "scales", "positive numbers")


def _check_fraction(config: object, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        _check(config, 0 <= value <= 1, name, "a number from 0 to 1")


@dataclass(kw_only=True)
class SyntheticConfig:
    """What `SyntheticDataset` draws."""

    classes: int = 8
    """Object classes, 8 to 12."""
    train_images: int = 160
    """Images of the training list."""
    val_images: int = 60
    """Images of the val list (context tied to the class as in training)."""
    cut_images: int = 60
    """Images of the list `cut`, in which the tie between class and context is cut."""
    size: int = 128
    """Mean side in pixels; images vary in height and width around it."""
    confounding: float = 0.9
    """Probability that an object stands on its class's own context."""
    seed: int = 0
    """Seed of the drawing; the same seed gives byte-identical files."""

    def __post_init__(self) -> None:
        _check(self, 8 <= self.classes <= 12, "classes", "8 to 12")
        _check_positive(self, "train_images", "val_images", "cut_images")
        _check(self, self.size >= 64, "size", "at least 64 pixels")
        _check_fraction(self, "confounding")
        _check_not_negative(self, "seed")


@dataclass(kw_only=True)
class DataConfig:
    """Images, image-level labels, and the lists that the stages use."""

    kind: Literal["voc", "folder", "synthetic"] = "voc"
    """voc: a VOCdevkit; folder: images and a CSV; synthetic: drawn into the run's folder."""
    root: str = "data/VOCdevkit/VOC2012"
    """Folder of the dataset (for synthetic: where it is drawn; empty means inside the run)."""
    sbd: str | None = None
    """Folder of the SBD (`benchmark_RELEASE/dataset`), from which train_aug is derived."""
    labels: str | None = None
    """CSV `image_id,labels`; folder: `<root>/labels.csv` if unset; voc: instead of the XML."""
    train_list: str = "train_aug"
    """Images that the three networks are trained on."""
    score_list: str = "train"
    """Images on which seeds and pseudo masks are scored; must have masks to be scored."""
    val_list: str = "val"
    """Images on which seeds and the segmenter are scored."""
    test_list: str | None = None
    """Images without masks, predicted for the test server."""
    threads: int = 2
    """Threads of the DALI pipeline."""
    synthetic: SyntheticConfig = field(default_factory=SyntheticConfig)

    def __post_init__(self) -> None:
        _check_positive(self, "threads")


@dataclass(kw_only=True)
class TrainConfig:
    """What the three trained networks have in common."""

    epochs: float = 5.0
    """Passes over the training list; ignored when `steps` is set."""
    steps: int | None = None
    """Optimiser steps."""
    batch_size: int = 16
    """Images per optimiser step, over all ranks and accumulation steps together."""
    accumulate: int = 1
    """Micro-batches that one optimiser step is summed from."""
    lr: float = 0.1
    """Learning rate of the backbone."""
    head_lr: float = 1.0
    """Learning rate of the new layers."""
    momentum: float = 0.9
    weight_decay: float = 1e-4
    power: float = 0.9
    """Exponent of the poly schedule."""
    poly_interval: int = 1
    """Steps between two changes of the learning rate."""
    warmup: int = 0
    """Leading steps in which the learning rate rises linearly, for large rates and batches."""
    crop: int = 512
    """Side of the square training crop, pixels."""
    resize_long: Range | None = None
    """Long side is resized to a uniform size of this range before the crop, pixels."""
    scale: Range | None = None
    """Or: the image is resized by a uniform factor of this range."""
    flip: bool = True
    """Mirror half of the images."""
    precision: Precision = "auto"
    """Autocast type, of inference with the network too; auto is bfloat16 where the hardware
    multiplies it fast (see precision.py)."""
    compile: bool | None = None
    """torch.compile the network, for inference too (of front_door, inference goes by classifier);
    unset means on CUDA only."""
    compile_mode: Literal["default", "reduce-overhead", "max-autotune-no-cudagraphs"] = "default"
    """torch.compile's mode in the training; inference is compiled in the default mode.
    reduce-overhead is for `accumulate` = 1: a CUDA graph overwrites the gradients of the last."""
    checkpoint_every: int = 100
    """Steps between two checkpoints."""
    keep_checkpoints: int = 2
    """How many checkpoints are kept while the training goes on, the newest ones."""
    log_every: int = 10
    """Steps between two lines of metrics.jsonl."""

    def __post_init__(self) -> None:
        _check_positive(self, "epochs", "steps", "batch_size", "accumulate", "lr", "head_lr")
        _check_positive(self, "crop", "checkpoint_every", "log_every", "poly_interval")
        _check_positive(self, "keep_checkpoints")
        _check_not_negative(self, "warmup", "weight_decay", "power")
        _check(self, 0 <= self.momentum < 1, "momentum", "a number in [0, 1)")
        _check(
            self, self.batch_size % self.accumulate == 0, "accumulate", "a divisor of batch_size"
        )
        _check(
            self,
            self.accumulate == 1 or self.compile_mode != "reduce-overhead",
            "compile_mode",
            "another mode than reduce-overhead where accumulate is above 1",
        )
        _check_range(self, "resize_long")
        _check_range(self, "scale")
        _check(
            self, not (self.resize_long and self.scale), "scale", "unset when resize_long is set"
        )


@dataclass(kw_only=True)
class ClassifierConfig(TrainConfig):
    """Stage `classifier`: multi-label classification, the baseline of every method."""

    backbone: BackboneName = "resnet50"
    weights: str = "imagenet"
    """imagenet (torchvision, or the pip package of efficientnet_lite0), none, or a file."""
    output_stride: Literal[8, 16, 32] = 16
    frozen_stages: int = 1
    """Leading backbone stages that are not trained: 1 is the stem, 3 ends with layer2."""
    freeze_bn: bool = True
    """Batch norms keep their statistics and affine part."""
    resize_long: Range | None = (320.0, 640.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self, 0 <= self.frozen_stages <= 5, "frozen_stages", "0 to 5")


@dataclass(kw_only=True)
class GlobalCamConfig:
    """Stage `global_cam`: the mean normalised CAM of each class over the training list."""

    size: int = 128
    """Side of the Global CAM."""

    def __post_init__(self) -> None:
        _check_positive(self, "size")


@dataclass(kw_only=True)
class FrontDoorConfig(TrainConfig):
    """Stage `front_door`: a method's fine-tuning of the baseline, the same steps for each."""

    epochs: float = 4.0
    lr: float = 5e-4
    head_lr: float = 5e-3
    resize_long: Range | None = (320.0, 640.0)
    pooling: Literal["mean", "max", "lse"] = "mean"
    """Pooling of Eq. 3."""
    gamma: float = 1.0
    """Factor on the Global CAM."""
    probability: Literal["logit", "sigmoid"] = "logit"
    """P(z|x): the logit as released, or the sigmoid as written."""
    constant: float = 0.2
    """Factor on the logits of the method `constant`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_positive(self, "gamma", "constant")


@dataclass(kw_only=True)
class CamConfig:
    """Stage `cam`: multi-scale CAMs of a method's classifier, and the score of the seeds.

    The scales, mirror and batch size are those of the Global CAM too.
    """

    scales: tuple[float, ...] = (1.0, 0.5, 1.5, 2.0)
    flip: bool = True
    batch_size: int = 4
    """Images of one size that go through the network together."""
    max_pixels: int = 40_000_000
    """Most pixels of an image, at the largest scale; memory grows with them."""

    def __post_init__(self) -> None:
        _check_positive(self, "batch_size", "max_pixels")
        _check_scales(self, self.scales)


@dataclass(kw_only=True)
class CrfConfig:
    """Dense CRF: Potts model with a Gaussian and a bilateral kernel."""

    iterations: int = 10
    gaussian_sxy: float = 3.0
    """Standard deviation in pixels."""
    gaussian_compat: float = 3.0
    bilateral_sxy: float = 50.0
    """Standard deviation in pixels."""
    bilateral_srgb: float = 5.0
    """Standard deviation in grey levels (0..255)."""
    bilateral_compat: float = 10.0

    def __post_init__(self) -> None:
        _check_not_negative(self, "iterations")
        _check_positive(self, "gaussian_sxy", "bilateral_sxy", "bilateral_srgb")


@dataclass(kw_only=True)
class IrnLabelsConfig:
    """Stage `irn_labels`: confident foreground and background from the CAMs by dense CRF."""

    fg_threshold: float = 0.38
    bg_threshold: float = 0.10
    gt_prob: float = 0.7
    """Confidence of the unaries made from labels."""
    stream: bool = False
    """Make the labels, the same ones, in the pass of stage cam, from the class maps in memory. Of
    training images that are not scored, the high resolution maps then never touch the disk; other
    settings of this section need another pass."""
    crf: CrfConfig = field(default_factory=CrfConfig)

    def __post_init__(self) -> None:
        _check_fraction(self, "fg_threshold", "bg_threshold")
        _check(self, 0 < self.gt_prob < 1, "gt_prob", "a number between 0 and 1")
        ordered = self.bg_threshold <= self.fg_threshold
        _check(self, ordered, "bg_threshold", "at most fg_threshold")


@dataclass(kw_only=True)
class IrnConfig(TrainConfig):
    """Stage `irn`: class boundary and displacement field (Ahn et al. 2019)."""

    epochs: float = 3.0
    batch_size: int = 32
    lr: float = 0.1
    head_lr: float = 1.0
    """Learning rate of the displacement branch; `lr` is that of the boundary branch."""
    scale: Range | None = (0.5, 1.5)
    backbone: BackboneName = "resnet50"
    weights: str = "imagenet"
    radius: int = 10
    """Pairs closer than this on the stride-4 grid."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self, self.radius >= 2, "radius", "at least 2")


@dataclass(kw_only=True)
class PseudoMasksConfig:
    """Stage `pseudo_masks`: CAMs spread by a random walk up to the boundaries."""

    radius: int = 5
    beta: float = 10.0
    steps: int = 256
    threshold: float | Literal["best"] = 0.20
    """Background threshold, or the best of the sweep on the score list (reads its masks)."""

    def __post_init__(self) -> None:
        _check(self, self.radius >= 2, "radius", "at least 2")
        _check_positive(self, "beta", "steps")
        if self.threshold != "best":
            _check_fraction(self, "threshold")


@dataclass(kw_only=True)
class SegmenterConfig(TrainConfig):
    """Stage `segmenter`: DeepLabV2 trained on the pseudo masks."""

    steps: int | None = 30000
    batch_size: int = 10
    lr: float = 2.5e-4
    head_lr: float = 2.5e-3
    """Learning rate of the ASPP weights; their biases get twice that, without decay."""
    weight_decay: float = 5e-4
    poly_interval: int = 10
    crop: int = 321
    scale: Range | None = (0.5, 2.0)
    backbone: BackboneName = "resnet101"
    weights: str = "imagenet"
    """imagenet, none, a file, or classifier: the backbone as that stage has trained it."""
    output_stride: Literal[8, 16] = 8
    """8: layers 3 and 4 dilated, as published; 16: a quarter of the cells, for a CPU."""
    scales: tuple[float, ...] = (1.0, 0.5, 0.75)
    """Inputs that are fused by max."""
    loss: Literal["balanced", "cross_entropy"] = "balanced"
    """balanced: mean over background and over foreground pixels, halved (as released)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_scales(self, self.scales)

    @property
    def starts_from_classifier(self) -> bool:
        """Whether the backbone is that of the stage `classifier`, at first."""
        return self.weights == "classifier"


@dataclass(kw_only=True)
class PredictionsConfig:
    """Stage `predictions`: the segmenter's masks, with and without dense CRF."""

    flip: bool = False
    """Average with the mirrored image."""
    batch_size: int = 4
    """Images of one size that go through the network together."""
    classifier_weight: float = 0.0
    """Power of the probability that the baseline classifier gives a class (mean over cam.scales and
    mirrors). It multiplies what the segmenter gives the class; the background keeps its share. 0:
    the segmenter alone, as published."""
    crf: CrfConfig | None = field(
        default_factory=lambda: CrfConfig(
            gaussian_sxy=1.0, bilateral_sxy=67.0, bilateral_srgb=3.0, bilateral_compat=4.0
        )
    )
    crf_image: Literal["true", "mean_subtracted"] = "true"
    """mean_subtracted repeats the release: the image minus its mean, cast to wrapping bytes."""

    def __post_init__(self) -> None:
        _check_positive(self, "batch_size")
        _check_not_negative(self, "classifier_weight")


@dataclass(kw_only=True)
class EvaluationConfig:
    """How seeds and pseudo masks are scored."""

    thresholds: tuple[float, float, float] = (0.02, 0.60, 0.02)
    """First, last and step of the background thresholds swept."""
    choose_on: Literal["score", "val"] = "score"
    """The list on which the threshold is chosen; it is reported on both."""

    def __post_init__(self) -> None:
        start, stop, step = self.thresholds
        _check(self, 0 <= start <= stop <= 1 and step > 0, "thresholds", "first <= last in 0..1")


@dataclass(kw_only=True)
class ReportConfig:
    """Stage `report`: tables, figures and the HTML page."""

    gallery: int = 8
    """Images of the gallery (Figure 4)."""

    def __post_init__(self) -> None:
        _check_not_negative(self, "gallery")


@dataclass(kw_only=True)
class PipelineConfig:
    """A whole run."""

    name: str = "run"
    """Folder of the run below `workspace`."""
    workspace: str = "runs"
    seed: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    timeout: float = 3600.0
    """Longest wait of a process for another one of the run, seconds. The first one scores alone."""
    methods: tuple[str, ...] = ("cam", "c2am")
    """Rows of the table: the files of `c2am/methods`."""
    data: DataConfig = field(default_factory=DataConfig)
    classifier: ClassifierConfig = field(default_factory=ClassifierConfig)
    global_cam: GlobalCamConfig = field(default_factory=GlobalCamConfig)
    front_door: FrontDoorConfig = field(default_factory=FrontDoorConfig)
    cam: CamConfig = field(default_factory=CamConfig)
    irn_labels: IrnLabelsConfig = field(default_factory=IrnLabelsConfig)
    irn: IrnConfig = field(default_factory=IrnConfig)
    pseudo_masks: PseudoMasksConfig = field(default_factory=PseudoMasksConfig)
    segmenter: SegmenterConfig = field(default_factory=SegmenterConfig)
    predictions: PredictionsConfig = field(default_factory=PredictionsConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    report: ReportConfig = field(default_factory=ReportConfig)

    def __post_init__(self) -> None:
        plain = self.name not in ("", ".", "..") and not set(self.name) & set("/\\\0")
        _check(self, plain, "name", "a plain folder name")
        _check_not_negative(self, "seed")
        _check_positive(self, "timeout")
        _check(self, len(self.methods) > 0, "methods", "at least one method")
        unique = len(set(self.methods)) == len(self.methods)
        _check(self, unique, "methods", "each method once")
