"""Recipes and command lines become a `PipelineConfig`."""

import re
from argparse import ArgumentError
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, cast, get_args

import yaml
from jsonargparse import ArgumentParser, Namespace, set_parsing_settings
from jsonargparse.typing import NonNegativeInt

from c2am.config import PipelineConfig

RECIPES = Path(__file__).parent / "recipes"
set_parsing_settings(docstring_parse_attribute_docstrings=True)


class ConfigError(ValueError):
    """A recipe or an option is wrong; the message names it."""


@dataclass(frozen=True)
class Command:
    """A parsed command line of `python -m c2am.train`."""

    config: PipelineConfig
    stages: tuple[str, ...] | None
    """Stages to run; None is all."""
    start: str | None
    """First of the stages to run."""
    force: bool
    """Whether the stages are run again though they are done."""
    profile: int
    """Steps of each training of which a trace is written."""
    debug: bool
    """Whether errors show where they were raised."""
    print_config: bool
    """Whether the configuration is printed instead of run."""


def recipe_names() -> list[str]:
    """The recipes that c2am brings."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def recipe_path(name: str) -> Path:
    """File of a recipe, from its name or its path.

    Raises:
        ConfigError: there is neither.
    """
    known = RECIPES / f"{name}.yaml"
    if name in recipe_names():
        return known
    if Path(name).is_file():
        return Path(name)
    raise ConfigError(f"recipe {name!r}: no such file, nor one of {', '.join(recipe_names())}")


def build_parser(prog: str = "python -m c2am.train") -> ArgumentParser:
    """The parser of the training command: every field of `PipelineConfig` is an option."""
    parser = ArgumentParser(
        prog=prog,
        usage="%(prog)s [--recipe NAME|FILE] [--stages A,B] [--from STAGE] [--FIELD VALUE ...]",
        description="Run the pipeline, or some of its stages. What is done already is skipped.",
        exit_on_error=False,
        allow_abbrev=False,
        print_config=None,  # that of the library prints what is not checked yet
    )
    parser.add_argument(
        "--recipe",
        action="config",
        help=f"a YAML file, or one of: {', '.join(recipe_names())}; options override it",
    )
    parser.add_argument("--stages", type=str, help="run these stages only: a,b,...")
    parser.add_argument("--from", type=str, dest="start", help="run from this stage on")
    parser.add_argument(
        "--force", action="store_true", help="run the chosen stages again though they are done"
    )
    parser.add_argument(
        "--profile",
        type=NonNegativeInt,
        default=0,
        metavar="N",
        help="write a Chrome trace of N steps of each training, trace-<rank>.json.gz in its folder",
    )
    parser.add_argument("--debug", action="store_true", help="show where an error was raised")
    parser.add_argument(
        "--print_config", action="store_true", help="print the resulting recipe and stop"
    )
    parser.add_class_arguments(PipelineConfig, nested_key=None)
    return parser


def parse(argv: Sequence[str], prog: str = "python -m c2am.train") -> Command:
    """Parse a command line; `--help` prints and exits.

    Raises:
        ConfigError: an option or a field of the recipe is unknown, or a value is out of range.
    """
    parser = build_parser(prog)
    recipes, options = _arrange(argv)
    for recipe in recipes:
        try:
            content = _read_recipe(recipe)
            try:
                _build(parser, [f"--recipe={recipe}"])
            except ConfigError as error:
                raise ConfigError(_unknown_fields(content) or str(error)) from error
        except ConfigError as error:
            raise ConfigError(f"{recipe}: {error}") from error
    return _build(parser, [*(f"--recipe={recipe}" for recipe in recipes), *options])


def load_config(recipe: str | Path, overrides: Sequence[str] = ()) -> PipelineConfig:
    """Configuration of a recipe (name or file), with options as on the command line on top."""
    return parse(["--recipe", str(recipe), *overrides]).config


def dump_config(config: PipelineConfig) -> str:
    """The configuration as YAML, every field set: a recipe that gives the same run."""
    return yaml.safe_dump(_plain(asdict(config)), sort_keys=False, allow_unicode=True)


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {name: _plain(entry) for name, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, tuple | list) else value


def _arrange(argv: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Recipes and other words: options override a recipe wherever they stand."""
    recipes: list[Path] = []
    others: list[str] = []
    words = iter(argv)
    for word in words:
        option, given, value = word.partition("=")
        if option not in ("--recipe", "--methods"):
            others.append(word)
            continue
        value = value if given else next(words, "")
        if option == "--recipe":
            recipes.append(recipe_path(value))
        else:
            others.append(f"--methods=[{value.strip('[]')}]")
    return recipes, others


def _build(parser: ArgumentParser, argv: Sequence[str]) -> Command:
    try:
        values = parser.parse_args(argv)
        _check_sections(values)
        built = parser.instantiate(values)
        built.pop("recipe", None)
        stages, start = built.pop("stages"), built.pop("start")
        flags = {name: built.pop(name) for name in ("force", "profile", "debug", "print_config")}
        config = PipelineConfig(**vars(built))
    except (ArgumentError, ValueError, TypeError) as error:
        raise ConfigError(_message(error)) from error
    return Command(config, tuple(stages.split(",")) if stages else None, start, **flags)


def _read_recipe(recipe: Path) -> dict[Any, Any]:
    try:
        content = yaml.safe_load(recipe.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"not YAML: {_message(error)}") from error
    if not isinstance(content, dict):
        found = "nothing" if content is None else f"a {type(content).__name__}"
        raise ConfigError(f"expected fields and their values, found {found}")
    empty = [name for name, value in content.items() if value is None]
    if empty:
        raise ConfigError(f"{empty[0]}: has no value")
    return content


def _unknown_fields(content: dict[Any, Any]) -> str:
    """What to say of the fields of a recipe that the configuration lacks; empty if it has all."""
    unknown = list(_find_unknown(content, PipelineConfig, ""))
    if not unknown:
        return ""
    return (
        f"{'; '.join(unknown)}. Rename or remove what is unknown: it is misspelt, or another "
        "version of c2am wrote the file"
    )


def _find_unknown(content: dict[Any, Any], config: type[Any], section: str) -> Iterator[str]:
    """One phrase for each section with unknown fields: these, and the fields that there are."""
    kinds = {field.name: field.type for field in fields(config)}
    names = [str(name) for name in content if str(name).partition(".")[0] not in kinds]
    if names:
        listed = ", ".join(f"{section}{name}" for name in names)
        where = f"the fields of {section[:-1]}" if section else "the fields"
        yield f"unknown {listed} ({where} are {', '.join(kinds)})"
    for name, value in content.items():
        kind = kinds.get(name)
        for each in (kind, *get_args(kind)):  # a section, or one that may be null
            if isinstance(value, dict) and is_dataclass(each):
                yield from _find_unknown(value, cast(type, each), f"{section}{name}.")


def _check_sections(values: Namespace) -> None:
    for field in fields(PipelineConfig):
        value = values.get(field.name)
        if is_dataclass(field.type) and not isinstance(value, Namespace):
            raise ConfigError(f"{field.name}: expected a section with fields, got {value!r}")


def _message(error: BaseException) -> str:
    """What jsonargparse says, on one line."""
    text = " ".join(line.strip() for line in str(error).splitlines())
    return re.sub(r'Parser key "([^"]+)":', r"\1:", text)
