"""List the recipes, or run one: `python -m recipes imdb` equals `python -m recipes.imdb`.

Docstrings and expected scores are read from the source, not by import: a list must not wait for TensorFlow.
"""

import ast
import contextlib
import difflib
import os
import runpy
import signal
import sys
import textwrap
from pathlib import Path
from typing import Any

from toolkit._lessons import take_apart

USAGE = """\
usage: python -m recipes [NAME [OPTIONS]]
       python -m recipes notebook NAME [--out FILE.ipynb]

Without a NAME, list the recipes; with one, run it (NAME --help: its options),
or write it as a Jupyter notebook.
"""


def names() -> list[str]:
    """Return the names of all recipes."""
    return sorted(path.stem for path in Path(__file__).parent.glob("[!_]*.py"))


def describe(name: str) -> dict[str, Any]:
    """Return a recipe's first line, its docstring's entries ("Teaches", "Data", ...) and its EXPECTED."""
    tree = ast.parse((Path(__file__).parent / f"{name}.py").read_text(encoding="utf-8"))
    text = take_apart(ast.get_docstring(tree) or "")
    expected = {
        target.id: ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name) and target.id == "EXPECTED"
    }
    return {"title": text.title, **text.entries, "expected": expected.get("EXPECTED", {})}


def listing() -> str:
    """Return the list of recipes, 80 columns wide."""
    lines = []
    for name in names():
        about = describe(name)
        data = f"Data: {about.get('Data', 'not said')}"
        for entry in (about["title"], data, f"Expected: {_scores(about)}"):
            lines += textwrap.wrap(
                entry, 80, initial_indent=f"{name:<16}", subsequent_indent=" " * 16
            )
            name = ""
    return "\n".join([*lines, "", USAGE])


def table() -> str:
    """Return the README's table of the recipes."""
    lines = ["| recipe | what it teaches | score | published | time |", "|---|---|---|---|---|"]
    for name in names():
        about = describe(name)
        if lacking := [entry for entry in ("Teaches", "Takes") if entry not in about]:
            sys.exit(f"recipes/{name}.py: its docstring lacks the entry {' and '.join(lacking)}")
        cells = (
            f"`{name}`",
            about["Teaches"],
            _scores(about),
            about.get("Published", "none"),
            about["Takes"],
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _scores(about: dict[str, Any]) -> str:
    """Return the ranges of the scores on test rows, or of all where a lesson has none."""
    ranges = about["expected"]
    judged = {
        key: ends for key, ends in ranges.items() if key.startswith(("test_", "cv_"))
    } or ranges
    return ", ".join(f"{key} {low} to {high}" for key, (low, high) in judged.items())


def show(text: str) -> None:
    """Print a text to its end, or until its reader leaves, as `head` does."""
    with contextlib.suppress(BrokenPipeError):
        print(text, end="", flush=True)


def refuse_unknown(name: str) -> None:
    """End with a hint where no recipe has this name."""
    if name not in names():
        near = difflib.get_close_matches(name.lower(), names(), n=1)
        hint = f"Did you mean {near[0]}?" if near else f"There are: {', '.join(names())}."
        wrong = f"no recipe is called {name!r}. {hint}"
        if name.startswith("-"):
            wrong = f"unknown option {name!r}. See --help."
        print(f"python -m recipes: {wrong}", file=sys.stderr)
        sys.exit(2)


def write_notebook(name: str, args: list[str]) -> None:
    """Write a recipe as a Jupyter notebook."""
    refuse_unknown(name)
    from toolkit.run import notebook

    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # the package's, for the time of imports
        signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(notebook.write(Path(__file__).parent / f"{name}.py", args))


def run(name: str) -> None:
    """Run a recipe as `python -m recipes.NAME` would."""
    refuse_unknown(name)
    from toolkit.run import begin

    del sys.argv[1]
    os.environ.setdefault(
        "RECIPES_COMMAND", "python -m recipes"
    )  # scripts/recipe has said its own name
    begin(Path(__file__).with_name(f"{name}.py"), sys.argv[1:])
    runpy.run_module(f"recipes.{name}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    args = sys.argv[1:]
    asked = args[1:] if args[:1] == ["notebook"] else args
    if asked[:1] in (["-h"], ["--help"]):
        show(USAGE)
    elif args == ["--table"]:
        show(f"{table()}\n")
    elif args == ["notebook"]:
        print(USAGE, end="", file=sys.stderr)
        sys.exit(2)
    elif args[:1] == ["notebook"]:
        write_notebook(args[1], args[2:])
    elif args:
        run(args[0])
    else:
        show(listing())
