"""The command `c2am`. Each word imports what it needs only when it runs."""

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar, cast

from c2am import __version__
from c2am.config import CrfConfig, DataConfig, SyntheticConfig
from c2am.wording import counted

EXIT_BAD_INPUT = 2
_KINDS = ("classifier", "irn", "segmenter")

C = TypeVar("C")
Handler = Callable[[argparse.Namespace, list[str]], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0 done, 1 failed, 2 bad input.

    Bad input gets one line that names the file or option; `--debug` shows the traceback instead.
    """
    parser = build_parser()
    args, rest = parser.parse_known_args(argv)
    if rest and args.handler not in (_train, _evaluate, _bench):
        parser.error(f"unknown arguments: {' '.join(rest)}")
    try:
        return args.handler(args, rest)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except Exception as error:
        if args.debug or not is_bad_input(error):
            raise
        return _fail(f"error: {error}", EXIT_BAD_INPUT)


def is_bad_input(error: Exception) -> bool:
    """Whether an error speaks to the user: bad values and data, files, missing backends."""
    if isinstance(error, OSError):
        # Those of the package name the file in their message, those of Python in an attribute.
        return error.filename is not None or type(error).__module__.startswith("c2am.")
    return isinstance(error, ValueError) or type(error).__name__ == "BackendError"


def build_parser() -> argparse.ArgumentParser:
    """The parser of all words."""
    parser = argparse.ArgumentParser(
        prog="c2am",
        description="From image-level labels to segmentation: Causal CAM (C2AM).",
        epilog="`c2am WORD --help` says more about a word.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"c2am {__version__}")
    parser.add_argument("--debug", action="store_true", help="show where an error was raised")
    words = parser.add_subparsers(title="words", metavar="WORD", required=True)
    # The options of these three are those of the modules that do the work.
    for name, text, handler in (
        ("train", "run the pipeline, or some of its stages: from labels to masks", _train),
        ("evaluate", "score a folder of masks or class maps against the truth", _evaluate),
        ("bench", "time the ops or the stages, record a run; in the source checkout", _bench),
    ):
        _add_word(words, name, text, handler, add_help=False)
    _add_predict(words)
    _add_crf(words)
    _add_data(words)
    _add_convert(words)
    _add_report(words)
    _add_word(words, "doctor", "print devices, versions, backends, and what is missing", _doctor)
    return parser


def _add_word(
    words: argparse._SubParsersAction,
    name: str,
    text: str,
    handler: Handler | None = None,
    description: str | None = None,
    add_help: bool = True,
) -> argparse.ArgumentParser:
    """A word, or with no `handler` one that needs a second word."""
    parser = words.add_parser(
        name, help=text, description=description or text, add_help=add_help, allow_abbrev=False
    )
    parser.add_argument(
        "--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS
    )
    if handler is not None:
        parser.set_defaults(handler=handler)
    return parser


def _train(args: argparse.Namespace, rest: list[str]) -> int:
    from c2am.train import main as train

    return train([*rest, "--debug"] if args.debug else rest, prog="c2am train")


def _evaluate(args: argparse.Namespace, rest: list[str]) -> int:
    from c2am.evaluate import main as evaluate

    return evaluate([*rest, "--debug"] if args.debug else rest)


def _bench(args: argparse.Namespace, rest: list[str]) -> int:
    if not Path("benchmarks/__main__.py").is_file():
        raise ValueError(
            "benchmarks: no such folder here. The benchmarks are part of the source checkout, not "
            "of the installed package: run `c2am bench` in the checkout"
        )
    return subprocess.run([sys.executable, "-m", "benchmarks", *rest], check=False).returncode


def _add_predict(words: argparse._SubParsersAction) -> None:
    parser = _add_word(
        words,
        "predict",
        "segment a folder of images with the trained segmenter of a run",
        _predict,
        "Segment a folder of images with the trained segmenter of a run. Writes OUTPUT/<name>.png, "
        "palette PNGs of class indices.",
    )
    parser.add_argument("run", type=Path, help="folder of the run, as runs/demo")
    parser.add_argument("--images", type=Path, required=True, metavar="DIR")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument(
        "--method", help="whose segmenter (default: c2am, or else the last of the run)"
    )
    parser.add_argument("--crf", action="store_true", help="refine the masks by dense CRF")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")


def _predict(args: argparse.Namespace, rest: list[str]) -> int:
    from c2am.predict import predict

    count = predict(
        args.run, args.images, args.output, method=args.method, crf=args.crf, device=args.device
    )
    print(f"{counted(count, 'mask')} written to {args.output}")
    return 0


def _add_crf(words: argparse._SubParsersAction) -> None:
    parser = _add_word(
        words,
        "crf",
        "refine masks by dense CRF, one file or a folder",
        _crf,
        "Refine masks by mean-field inference of a dense CRF (Potts model; a Gaussian and a "
        "bilateral kernel). IMAGE and LABELS are two files or two folders; 255 in a mask is "
        "unsure.",
    )
    parser.add_argument("image", type=Path, metavar="IMAGE", help="an image, or a folder of them")
    parser.add_argument(
        "labels",
        type=Path,
        metavar="LABELS",
        help="its mask, or a folder of <image name>.png",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT")
    parser.add_argument(
        "--gt-prob",
        type=float,
        default=0.7,
        metavar="P",
        help="probability of the given labels (%(default)s)",
    )
    _add_fields(parser, CrfConfig, _CRF_HELP)


_CRF_HELP = {
    "iterations": "of mean field",
    "gaussian_sxy": "standard deviation of the Gaussian kernel, pixels",
    "gaussian_compat": "weight of the Gaussian kernel",
    "bilateral_sxy": "standard deviation of the bilateral kernel in space, pixels",
    "bilateral_srgb": "the same in colour, grey levels 0..255",
    "bilateral_compat": "weight of the bilateral kernel",
}


def _crf(args: argparse.Namespace, rest: list[str]) -> int:
    config = _from_fields(args, CrfConfig)
    from c2am.crf import refine_files

    count = refine_files(args.image, args.labels, args.output, config, gt_prob=args.gt_prob)
    print(f"{counted(count, 'mask')} written to {args.output}")
    return 0


def _add_data(words: argparse._SubParsersAction) -> None:
    parser = _add_word(words, "data", "check a dataset, or draw the synthetic one")
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    check = _add_word(
        actions,
        "check",
        "name what is missing or broken in a dataset, and where it comes from",
        _data_check,
        "Read every image, label and mask of the lists and name what is missing, broken or "
        "contradictory. Exit code 1 if there is an error.",
    )
    check.add_argument("root", type=Path, metavar="DIR", help="VOC2012 of a VOCdevkit, or a folder")
    check.add_argument("--kind", choices=("voc", "folder"), default="voc", help="(%(default)s)")
    # The second names are those of the training, which the messages speak of.
    check.add_argument("--sbd", "--data.sbd", metavar="DIR", help="SBD's benchmark_RELEASE/dataset")
    check.add_argument("--labels", "--data.labels", metavar="CSV", help="image_id,labels[,split]")
    for name in _LISTS:
        option, default = f"--{name.replace('_', '-')}", getattr(DataConfig(), name) or "none"
        if name == "train_list":
            default = f"{default}; of a folder {_FOLDER_TRAIN_LIST}"
        check.add_argument(option, f"--data.{name}", metavar="LIST", help=f"({default})")
    draw = _add_word(
        actions,
        "draw",
        "draw the synthetic dataset, in VOC's format",
        _data_draw,
        "Draw a small dataset in VOC's format. Each class has a context on which its objects "
        "usually stand; in the list `cut` that tie is cut.",
    )
    draw.add_argument("root", type=Path, metavar="DIR", help="a folder that does not exist yet")
    _add_fields(draw, SyntheticConfig, _DRAW_HELP)


_DRAW_HELP = {
    "classes": "object classes, 8 to 12",
    "train_images": "images of the list train",
    "val_images": "images of the list val",
    "cut_images": "images of the list cut",
    "size": "mean side, pixels",
    "confounding": "probability of an object to stand on its class's context",
    "seed": "the same seed gives the same files",
}


_LISTS = ("train_list", "score_list", "val_list", "test_list")
_FOLDER_TRAIN_LIST = "train"  # train_aug is VOC's


def _data_check(args: argparse.Namespace, rest: list[str]) -> int:
    from c2am.data.check import SOURCES, check_dataset

    lists: dict[str, Any] = {}
    if args.kind == "folder":
        lists["train_list"] = _FOLDER_TRAIN_LIST
    lists |= {name: getattr(args, name) for name in _LISTS if getattr(args, name) is not None}
    config = DataConfig(
        kind=args.kind,
        root=str(args.root),
        sbd=args.sbd,
        labels=args.labels,
        threads=os.cpu_count() or 1,
        **lists,
    )
    problems = check_dataset(config)
    for problem in problems:
        print(problem)
    errors = sum(problem.severity == "error" for problem in problems)
    if errors and args.kind == "voc":
        print(SOURCES)
    warnings = counted(len(problems) - errors, "warning")
    print(f"{args.root}: {counted(errors, 'error')}, {warnings}")
    return 1 if errors else 0


def _data_draw(args: argparse.Namespace, rest: list[str]) -> int:
    config = _from_fields(args, SyntheticConfig)
    from c2am.data.synthetic import draw_dataset

    draw_dataset(config, args.root)
    print(f"{args.root}: {config.classes} classes; lists train, val and cut")
    return 0


def _add_convert(words: argparse._SubParsersAction) -> None:
    parser = _add_word(
        words,
        "convert",
        "give the weights of a published checkpoint the names used here",
        _convert,
        "Read a published checkpoint (irn, works built on it, deeplab-pytorch) without running "
        "code from it, and write its weights under the names used here.",
    )
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help=".pth or .safetensors")
    parser.add_argument("output", type=Path, metavar="OUT.safetensors")
    parser.add_argument("--kind", choices=_KINDS, help="found from the names if left out")


def _convert(args: argparse.Namespace, rest: list[str]) -> int:
    if args.output.suffix != ".safetensors":
        raise ValueError(f"{args.output}: expected a name that ends in .safetensors")
    from c2am.models.convert import convert_checkpoint
    from c2am.workspace import write_tensors

    tensors = convert_checkpoint(args.checkpoint, args.kind)
    write_tensors(args.output, tensors)
    print(f"{counted(len(tensors), 'tensor')} written to {args.output}")
    return 0


def _add_report(words: argparse._SubParsersAction) -> None:
    parser = _add_word(
        words, "report", "build the HTML report of a run again, finished or not", _report
    )
    parser.add_argument("run", type=Path, help="folder of the run, as runs/demo")


def _report(args: argparse.Namespace, rest: list[str]) -> int:
    from c2am.data import open_dataset
    from c2am.runs import open_run
    from c2am.stages import report

    config, workspace = open_run(args.run)
    dataset = open_dataset(config.data, workspace.root / "data")
    print(report.write(report.build(config, workspace, dataset), workspace))
    return 0


def _add_fields(parser: argparse.ArgumentParser, config: type[Any], texts: dict[str, str]) -> None:
    """One option for every field of a dataclass of numbers."""
    for field in fields(config):
        parser.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=type(field.default),
            default=field.default,
            metavar="N",
            help=f"{texts[field.name]} (%(default)s)",
        )


def _from_fields(args: argparse.Namespace, config: type[C]) -> C:
    return config(**{field.name: getattr(args, field.name) for field in fields(cast(Any, config))})


def _fail(message: str, code: int) -> int:
    print(message, file=sys.stderr)
    return code


def _doctor(args: argparse.Namespace, rest: list[str]) -> int:
    from c2am import doctor

    return doctor.main()


if __name__ == "__main__":
    sys.exit(main())
