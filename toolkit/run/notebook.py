"""A recipe as a Jupyter notebook, and `start`, which makes the `run` of its cells.

The notebook is cut from the source: the options of `main` become assignments, its numbered comments headings,
its other comments text, and its statements short cells, each of which ends where something is shown.
"""

import argparse
import ast
import importlib.util
import io
import re
import symtable
import sys
import textwrap
import tokenize
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import docstring_parser

from toolkit import _files, quiet
from toolkit._lessons import take_apart
from toolkit.run.recipe import Recipe

if TYPE_CHECKING:
    from toolkit.run import Run

PACKAGE = "keras-study-recipes"
_INSTALL = f"""\
# The package of the lessons; it is installed where it is missing, as on Colab.
try:
    import recipes
except ImportError:
    %pip install --quiet {PACKAGE}
    import recipes"""
_WIDTH = 100  # columns of a line of code


def start(
    name: str,
    *,
    seed: int = 0,
    data: Any = "auto",
    data_dir: str | Path | None = None,
    out: str | Path = "runs",
) -> "Run":
    """Return the `run` of a notebook: as in the command, but cells are run again instead of resumed.

    The ranges of the recipe hold for its default options: they stand beside the scores unless a variable of
    the notebook gives one of these options another value.

    Args:
        name: Name of the recipe.
        seed: Seed of every random choice: same seed, same numbers as those of the command.
        data: "auto" takes the real data, or else the embedded sample; "real" or "sample" takes that alone.
        data_dir: Folder that holds the data files.
        out: Folder for the results; each call makes a new one in it.

    Raises:
        OSError: No folder can be made in `out`.
    """
    quiet.start()
    import keras
    import tensorflow as tf

    from toolkit.data import Data
    from toolkit.run import Run, once, report

    class NotebookRun(Run):
        def keep(self, name: str = "fit") -> Any:
            """Keep nothing: a checkpoint would meet the changed model of a cell that is run again."""

    tf.get_logger().setLevel("ERROR")
    device = once.find_device()
    keras.utils.set_random_seed(seed)
    spec = importlib.util.find_spec(f"recipes.{name}")
    recipe = Recipe.read(Path(spec.origin)) if spec and spec.origin else None
    expected = recipe.expected if recipe else {}
    defaults = recipe.defaults() if recipe else {}
    variables = sys._getframe(1).f_globals
    default = all(variables.get(option, value) == value for option, value in defaults.items())
    loaded = Data(data, data_dir, on_load=lambda dataset: report.announce(dataset, seed, device))
    folder = report.new_folder(Path(out, name))
    return NotebookRun(name, folder, loaded, seed, expected, default)


def notebook(path: Path) -> Any:
    """Return the recipe in a file as a notebook (an `nbformat.NotebookNode`), without running any of it.

    Raises:
        ValueError: `main` gives a name of the module to something else, which in a notebook, where all names
            are global, would take the place of what the module meant by it.
    """
    from nbformat import v4

    source = _Source(path)
    source.refuse_clashes()
    cells = [
        v4.new_markdown_cell(source.introduction()),
        v4.new_code_cell(_INSTALL),
        v4.new_code_cell(source.imports() + "\nfrom toolkit.run import notebook"),
        *map(v4.new_code_cell, source.definitions()),
        v4.new_markdown_cell("## Options\n\nChange them, and run the cells below again."),
        v4.new_code_cell(source.options()),
        v4.new_code_cell(
            "# Figures appear below their cells, and scores beside the range in which they should land.\n"
            f'{source.run} = notebook.start("{path.stem}", seed=seed)'
        ),
    ]
    for kind, text in source.steps():
        cells.append(v4.new_markdown_cell(text) if kind == "text" else v4.new_code_cell(text))
    if to_try := source.about.entries.get("Try next"):
        cells.append(v4.new_markdown_cell(f"## Try next\n\n{source.prose(to_try)}"))
        cells.append(v4.new_code_cell(""))
    for number, cell in enumerate(cells, 1):
        cell["id"] = f"cell-{number}"  # by default drawn at random: the same recipe gives the same file
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    return v4.new_notebook(cells=cells, metadata=kernel)


def write(recipe: Path, args: Sequence[str]) -> int:
    """Write the notebook of a recipe, as `python -m recipes notebook NAME [--out FILE.ipynb]`.

    Returns:
        The exit status: 1, with a message, where it cannot be written or stands there already.
    """
    parser = argparse.ArgumentParser(prog=f"python -m recipes notebook {recipe.stem}")
    parser.add_argument("--out", type=Path, default=Path(f"{recipe.stem}.ipynb"), metavar="FILE.ipynb")
    out = parser.parse_args(args).out
    try:
        import nbformat

        if out.exists():
            raise FileExistsError(
                f"{out} is there already, maybe with work of yours; --out names another one"
            )
        made = notebook(recipe)
        nbformat.validate(made)
        with _files.whole(out) as unfinished:
            unfinished.write_text(nbformat.writes(made) + "\n", encoding="utf-8")
    except (ImportError, OSError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    print(f"Written: {out}")
    return 0


class _Source:
    """A recipe's source, cut into the parts of a notebook."""

    def __init__(self, path: Path) -> None:
        self.path, self.text = path, path.read_text(encoding="utf-8")
        self.lines = self.text.splitlines()
        self.tree = ast.parse(self.text)
        self.about = take_apart(ast.get_docstring(self.tree) or "")
        mains = [node for node in self.tree.body if isinstance(node, ast.FunctionDef) and node.name == "main"]
        if len(mains) != 1 or not mains[0].args.args:
            raise ValueError(
                f"{path} must hold a recipe, with `def main(run, *, ...)`. Received: no such main"
            )
        (self.main,) = mains
        self.run = self.main.args.args[0].arg
        has_docstring = ast.get_docstring(self.main) is not None
        self.first = (self.main.body[0].end_lineno or 0) + 1 if has_docstring else self.main.body[0].lineno
        self.body = self.main.body[has_docstring:]
        self.about_main = docstring_parser.parse(ast.get_docstring(self.main) or "")
        self._read_tokens()

    def refuse_clashes(self) -> None:
        """Raise a ValueError where `main` binds a name of the module."""
        table = symtable.symtable(self.text, str(self.path), "exec")
        (main,) = (child for child in table.get_children() if child.get_name() == "main")
        assert isinstance(main, symtable.Function)
        if clashes := set(main.get_locals()) & {*table.get_identifiers(), "notebook", "recipes"}:
            raise ValueError(
                f"`main` must not bind a name of its module, for the sake of its notebook. "
                f"Received: {', '.join(sorted(clashes))} in {self.path}"
            )

    def introduction(self) -> str:
        title, entries, others = self.about
        about_main = [self.about_main.short_description, self.about_main.long_description]
        texts = [" ".join(part.split()) for part in about_main if part]
        shown = [f"**{key}.** {self.prose(text)}" for key, text in entries.items() if key != "Try next"]
        return "\n\n".join([f"# {title.rstrip('.')}", *map(self.prose, [*texts, *others]), *shown])

    def imports(self) -> str:
        """Return the imports, without those names that only the command line needs."""
        used = {name for node in [*self._definitions(), *self.body] for name in _used(node)}
        parts: list[str] = []
        end = 0
        for node in self.tree.body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                kept = [name for name in node.names if (name.asname or name.name).partition(".")[0] in used]
                if kept:
                    apart = bool(parts) and "" in self.lines[end : node.lineno - 1]
                    whole = kept == node.names
                    node.names = kept
                    parts.append("\n" * apart + (self._code(node) if whole else ast.unparse(node)))
                end = node.end_lineno or 0
        return "\n".join(parts)

    def definitions(self) -> Iterator[str]:
        """Yield the code of functions, classes and constants, with the comments above them."""
        for node in self._definitions():
            first = _first_line(node)
            while self.lines[first - 2].startswith("#"):
                first -= 1
            yield "\n".join([*self.lines[first - 1 : _first_line(node) - 1], self._code(node)])

    def options(self) -> str:
        """Return an assignment for each option, with its help as comment."""
        lines = ["seed = 0  # Seed of every random choice: same seed, same numbers."]
        help_of = {entry.arg_name: entry.description or "" for entry in self.about_main.params}
        for argument, default in zip(self.main.args.kwonlyargs, self.main.args.kw_defaults, strict=True):
            text = " ".join(help_of.get(argument.arg, "").split())
            if choices := _choices(argument):
                text += f" {', '.join(map(_quoted, choices[:-1]))} or {_quoted(choices[-1])}."
            line = f"{argument.arg} = {ast.get_source_segment(self.text, default) if default else None}"
            if len(line) + len(text) + 4 <= _WIDTH:
                lines.append(f"{line}  # {text}".rstrip("# "))
            else:
                lines += [*(f"# {part}" for part in textwrap.wrap(text, _WIDTH - 2)), line]
        return "\n".join(lines)

    def steps(self) -> Iterator[tuple[str, str]]:
        """Yield ("text", Markdown) and ("code", statements) in the order of `main`."""
        cell: list[ast.stmt] = []
        for piece in [*self._pieces(), ""]:
            goes_on = isinstance(piece, ast.stmt) and (_shows(piece) or not (cell and _shows(cell[-1])))
            if cell and not goes_on:
                yield "code", self._cell(cell)
                cell = []
            if isinstance(piece, ast.stmt):
                cell.append(piece)
            elif text := self._step(piece):
                yield "text", text

    def _cell(self, statements: list[ast.stmt]) -> str:
        """Return the code of a cell, without checkpoints, as no cell is resumed.

        A last value that only a notebook would show, a History say, gets a semicolon.
        """
        code = "\n".join(map(self._code, statements))
        keep = rf"checkpoint={self.run}\.keep\([^()]*\)"
        code = re.sub(rf"^ +{keep},(  #.*)?\n|, {keep}$", "", code, flags=re.MULTILINE)
        last = statements[-1]
        if not (isinstance(last, ast.Expr) and isinstance(last.value, ast.Call)):
            return code
        _, _, called = ast.unparse(last.value.func).rpartition(".")
        return f"{code};" if called in ("fit", "fit_many", "save") else code

    def prose(self, text: str) -> str:
        """Return text as Markdown: options as assignments, and without sentences on the command line."""
        arguments = {argument.arg: argument for argument in self.main.args.kwonlyargs}

        def assignment(match: re.Match[str]) -> str:
            name, value = match[1].replace("-", "_"), match[2]
            wanted = name not in arguments and name.removeprefix("no_") in arguments
            argument = arguments.get(name.removeprefix("no_") if wanted else name)
            if argument is None:
                return match[0]
            kind = ast.unparse(argument.annotation) if argument.annotation else ""
            choices = _choices(argument)
            if kind == "bool" or (value and choices and value not in choices):
                rest = f" {value}" if value else ""
                return f"`{name.removeprefix('no_')} = {not wanted}`{rest}" if kind == "bool" else match[0]
            if not value:
                return f"`{name}`"
            bare = not choices and "str" not in kind
            return f"`{name} = {value if bare or value[0] in chr(34) + chr(39) else _quoted(value)}`"

        flag = r"--([a-z][a-z-]*[a-z])(?: (\"[^\"]*\"|'[^']*'|[\w.+-]*\w))?"
        sentences = [re.sub(flag, assignment, part) for part in re.split(r"(?<=[.!?]) +", text)]
        kept = " ".join(sentence for sentence in sentences if not re.search(r"--[a-z]", sentence))
        return re.sub(r"(`[^`]*`)|([$*<])", lambda match: match[1] or f"\\{match[2]}", kept)

    def _step(self, comment: str) -> str:
        """Return a comment as Markdown: "1. Data: each row is a house." as a heading with a text below it."""
        if not (numbered := re.fullmatch(r"(\d+\. .+?)(?:[.:] (.*)|[.:]?)", comment)):
            return self.prose(comment)
        heading, text = numbered[1], self.prose(numbered[2] or "")
        if re.match(r"(a|[a-z]{2,})[ ,]", text):
            text = text[0].upper() + text[1:]
        return f"## {heading}\n\n{text}".rstrip()

    def _pieces(self) -> Iterator[str | ast.stmt]:
        """Yield the statements of `main`, the comments between them in one line, and "" for a blank line."""
        at = self.first
        end = self.main.end_lineno or 0
        while end < len(self.lines) and not self.lines[end][:1].strip():  # a last comment of `main`
            end += 1
        for statement in [*self.body, None]:
            until = _first_line(statement) if statement else end + 1
            comment: list[str] = []
            for line in map(str.strip, self.lines[at - 1 : until - 1]):
                if line.startswith("#") and not (re.match(r"# \d+\. ", line) and comment):
                    comment.append(line.lstrip("# "))
                    continue
                yield " ".join(comment)
                comment = [line.lstrip("# ")] if line else []
            if comment:
                yield " ".join(comment)
            if statement is not None:
                yield statement
                at = (statement.end_lineno or 0) + 1

    def _definitions(self) -> list[ast.stmt]:
        """Return what the module defines for its steps."""
        kinds = (ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
        for_the_command = ("EXPECTED", "QUICK")
        return [
            node
            for node in self.tree.body
            if isinstance(node, kinds)
            and node is not self.main
            and not (isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in for_the_command)
        ]

    def _code(self, node: ast.stmt) -> str:
        """Return the lines of a statement, moved to the left."""
        lines = []
        for number in range(_first_line(node), (node.end_lineno or 0) + 1):
            line = self.lines[number - 1][: self.cut_at.get(number)].rstrip()
            lines.append(line if number in self.inside_strings else line[node.col_offset :])
        return "\n".join(lines)

    def _read_tokens(self) -> None:
        """Find strings of several lines, and comments that are meant for the command line or for linters."""
        self.inside_strings: set[int] = set()  # lines whose blanks are part of a string
        self.cut_at: dict[int, int] = {}  # for a line the column of a comment that a notebook has no use for
        starts: list[int] = []
        for token in tokenize.generate_tokens(io.StringIO(self.text).readline):
            kind = tokenize.tok_name[token.type]
            if kind == "FSTRING_START":  # from Python 3.12 on such a string is several tokens
                starts.append(token.start[0])
            elif kind in ("STRING", "FSTRING_END"):
                first = starts.pop() if kind == "FSTRING_END" else token.start[0]
                self.inside_strings.update(range(first + 1, token.end[0] + 1))
            elif kind == "COMMENT" and re.search(r"--[a-z]|^# (noqa|type:|fmt:)", token.string):
                self.cut_at[token.start[0]] = token.start[1]


def _first_line(node: ast.stmt) -> int:
    """Return the number of a statement's first line, that of its first decorator if it has one."""
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    return min([node.lineno, *(decorator.lineno for decorator in decorators)])


def _used(node: ast.AST) -> set[str]:
    """Return the names that occur in a part of the source."""
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}


def _shows(statement: ast.stmt) -> bool:
    """Tell whether a statement shows something: text, a score, a figure, or how training goes."""
    calls = [part for part in ast.walk(statement) if isinstance(part, ast.Call)]
    names = [ast.unparse(call.func) for call in calls]
    trains = any(keyword.arg == "epochs" for call in calls for keyword in call.keywords)
    return trains or any(re.search(r"^print$|\.(score|figure)$", name) for name in names)


def _choices(argument: ast.arg) -> list[str]:
    """Return the values that a `Literal` allows."""
    annotation = argument.annotation
    if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value).endswith("Literal"):
        values = ast.literal_eval(annotation.slice)
        return [str(value) for value in (values if isinstance(values, tuple) else (values,))]
    return []


def _quoted(text: str) -> str:
    return f'"{text}"'
