"""The options of a run: from the command line, `--set`, or the report of an earlier run; read and checked."""

import contextlib
import dataclasses
import io
import ipaddress
import itertools
import json
import re
import shutil
import sys
import textwrap
import types
import typing
import urllib.parse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import docstring_parser
import tyro

from toolkit import _files
from toolkit.run.recipe import Recipe

Folder = Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")]
Options = dict[str, Any]  # those of a recipe, by name
KEPT = ("quick", "data", "data_dir")  # of the common options: what a report keeps beside the seed


@dataclasses.dataclass
class Common:
    """The options that every recipe has."""

    seed: int = 0
    """Seed of every random choice: same seed, same numbers."""
    out: Path = Path("runs")
    """Folder for the results; each run makes a new one in it."""
    quick: tyro.conf.FlagCreatePairsOff[bool] = False
    """A short run that shows the way; its scores are not judged."""
    data: Literal["auto", "real", "sample"] = "auto"
    """auto: the real data, or else the embedded sample; real or sample: that and nothing else."""
    data_dir: Folder = None
    """Folder that holds the data files (see scripts/download)."""
    seeds: int = 1
    """Run with so many seeds, from --seed on, and show how far the scores spread."""
    set: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """NAME=A,B,C: run with each of these values of an option; several of these: with every combination."""
    jobs: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """So many runs of --seeds and --set at once; by default, as many as cores and free memory allow."""
    cluster: Annotated[str | None, tyro.conf.arg(metavar="ADDRESS")] = None
    """Run --seeds and --set on a Dask cluster, by the address of its scheduler."""
    insecure: tyro.conf.FlagCreatePairsOff[bool] = False
    """Use a cluster on other machines without TLS: whoever reaches it runs code on all of them."""
    no_cache: tyro.conf.FlagCreatePairsOff[bool] = False
    """Compile anew what earlier runs have compiled, and keep nothing; so does RECIPES_CACHE=off."""
    resume: Folder = None
    """The folder of a run or study that was cut short: go on there, with its options, to the same numbers."""


def parse(recipe: Recipe, args: Sequence[str]) -> tuple[Options, Common]:
    """Read a command line into the options of the recipe and the common ones.

    Raises:
        SystemExit: After `--help`, with status 0; for a mistake, with status 2 and a message that names it.
    """
    shortened = recipe.quick if "--quick" in args else {}
    described = docstring_parser.parse(recipe.main.__doc__ or "").params
    help_of = {entry.arg_name: entry.description for entry in described}
    hints = typing.get_type_hints(recipe.main)
    fields = []
    for name, default in recipe.defaults().items():
        if name not in help_of:
            file = recipe.main.__code__.co_filename
            option = f"--{name.replace('_', '-')}"
            refuse(recipe, f"{file}: the docstring of main must describe {name} under Args:, for {option}")
        about = tyro.conf.arg(help=help_of[name], metavar=_metavar(hints[name]))
        fields.append((name, Annotated[hints[name], about], shortened.get(name, default)))
    lesson = dataclasses.make_dataclass("Lesson", fields)
    unnamed = tyro.conf.arg(name="")
    chosen, common = tyro.cli(
        tuple[Annotated[lesson, unnamed], Annotated[Common, unnamed]],  # type: ignore[valid-type]
        prog=recipe.typed,
        description=_wrapped(recipe.docstring),
        args=args,
    )
    options = {name: getattr(chosen, name) for name, _, _ in fields}
    _check(recipe, options, common)
    return options, common


def resumed(recipe: Recipe, folder: Path) -> tuple[Options, Common]:
    """Return the options of the run in a folder, after its report.

    Raises:
        SystemExit: If there is no run of this recipe to go on with, with status 2 and a line that says why.
    """
    from toolkit.run.report import checked  # which needs the options

    try:
        report = checked(json.loads(_files.read_own(folder / "report.json")))
        _files.refuse_links(folder)
        if (history := folder / "history.csv").exists():
            _files.read_own(history)
        kept = {"options": report["options"], "common": {"seed": report["seed"], **report["command"]}}
        if report["recipe"] != recipe.name or set(kept["options"]) != set(recipe.defaults()):
            refuse(recipe, f"--resume must be the folder of a run of {recipe.name}. Received: {folder}")
        if report["status"] == "finished":
            refuse(recipe, f"--resume must be a run cut short. Received: {folder}, which is finished")
        options, common = _again(recipe, [*words(kept["options"]), *words(kept["common"])])
        read = {"options": options, "common": {name: getattr(common, name) for name in ("seed", *KEPT)}}
        if _as_json(read) != _as_json(kept):  # a number as a text, say
            raise ValueError(f"{_as_json(kept)} cannot be the options")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        text = "--resume must be the folder of a run, with its report.json"
        refuse(recipe, f"{text}. Received: {folder} ({reason:.200})")
    return options, dataclasses.replace(common, out=folder.parent, resume=folder)


def _again(recipe: Recipe, args: Sequence[str]) -> tuple[Options, Common]:
    """Read options that were kept; a mistake is a ValueError."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
        try:
            return parse(recipe, args)
        except SystemExit as error:
            raise ValueError(re.sub(r"[\W_]*\n[\W_]*", " ", said.getvalue())) from error


def words(options: Mapping[str, Any]) -> list[str]:
    """Return the command line that gives these options."""
    found = []
    for name, value in options.items():
        option = name.replace("_", "-")
        if isinstance(value, bool):
            if value or name != "quick":  # the one switch that has no opposite
                found.append(f"--{option}" if value else f"--no-{option}")
        elif isinstance(value, list | tuple):
            found += [f"--{option}", *map(str, value)]
        else:
            found.append(f"--{option}={value}")
    return found


def _as_json(content: Any) -> str:
    return json.dumps(content, sort_keys=True, default=str)


def variants(recipe: Recipe, options: Options, sweeps: Sequence[str]) -> dict[str, Options]:
    """Return the options of every combination that `--set` asks for, by a label such as "units=4, folds=2".

    Raises:
        SystemExit: If there is no such option or value, with status 2 and a line that names it.
    """
    columns = []
    defaults = recipe.defaults()
    for sweep in sweeps:
        name, _, values = sweep.partition("=")
        name = name.strip().lstrip("-").replace("-", "_")
        if name not in defaults or not values:
            names = ", ".join(defaults)
            refuse(recipe, f"--set must be NAME=A,B,C with a NAME of {names}. Received: {sweep}")
        columns.append([(name, text) for text in values.split(",")])
    found = {}
    for chosen in itertools.product(*columns):
        changed = {}
        for name, text in chosen:
            value: str | bool = text
            if isinstance(defaults[name], bool):
                if text.lower() not in ("true", "false"):
                    refuse(recipe, f"--set {name} must be true or false. Received: {text}")
                value = text.lower() == "true"
            changed[name] = parse(recipe, words({name: value}))[0][name]
        found[", ".join(f"{name}={text}" for name, text in chosen)] = options | changed
    return found


def refuse(recipe: Recipe, message: str) -> NoReturn:
    """Say what is wrong with the options, in a line, and end with status 2."""
    print(f"{recipe.name}: {message}", file=sys.stderr)
    sys.exit(2)


def _check(recipe: Recipe, options: Options, common: Common) -> None:
    for name, value in [*options.items(), ("seeds", common.seeds), ("jobs", common.jobs)]:
        if isinstance(value, int | float) and not isinstance(value, bool) and not value > 0:
            refuse(recipe, f"--{name.replace('_', '-')} must be greater than 0. Received: {value}")
    if not 0 <= common.seed <= 2**32 - common.seeds:
        refuse(recipe, f"--seed must be in 0..{2**32 - common.seeds}. Received: {common.seed}")
    if common.cluster is not None and (reason := unsafe(common.cluster, common.insecure)):
        refuse(recipe, f"--cluster {reason}. Received: {common.cluster}")
    if common.data_dir is not None and not common.data_dir.expanduser().is_dir():
        refuse(recipe, f"--data-dir must be a folder that is there. Received: {common.data_dir}")


def unsafe(address: str, insecure: bool) -> str:
    """Say why an address is not to be used: what one sends there, all can read and change; "" if it may be.

    >>> unsafe("tcp://127.0.0.1:8786", insecure=False), unsafe("tls://10.0.0.5:8786", insecure=False)
    ('', '')
    >>> unsafe("tcp://10.0.0.5:8786", insecure=False)[:42]
    'must be tls://... or an address of this ma'
    """
    parts = urllib.parse.urlsplit(address if "://" in address else f"tcp://{address}")
    try:
        here = parts.hostname == "localhost" or ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:  # a name
        here = False
    if here or insecure or parts.scheme == "tls":
        return ""
    return "must be tls://... or an address of this machine, or else --insecure must be said"


def _metavar(hint: Any) -> str | None:
    """Name what an option takes that may be left out, which tyro would show as {None}|STR."""
    if isinstance(hint, types.UnionType) and len(inner := set(typing.get_args(hint)) - {types.NoneType}) == 1:
        return str(inner.pop().__name__).upper()
    return None


def _wrapped(docstring: str) -> str:
    """Return the text of a lesson, each entry ("Teaches", ...) a paragraph no wider than the terminal."""
    width = min(100, shutil.get_terminal_size().columns)
    entries = re.split(r"\n+(?=\w)", docstring.strip())
    lines = [" ".join(line.strip() for line in entry.splitlines()) for entry in entries]
    # The second column of an entry starts where it does in the source.
    return "\n\n".join(textwrap.fill(line, width, subsequent_indent=" " * 10) for line in lines)
