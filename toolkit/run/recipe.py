"""What the command line knows of a recipe: its `main`, its text, its ranges, and how to start it."""

import ast
import dataclasses
import inspect
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A recipe, as its module has it.

    Attributes:
        main: `main(run, *, option=default, ...)` with an `Args:` section in its docstring.
        name: The name of its file, without the ending.
        docstring: The text at the top of the file.
        expected: The lowest and highest value of each score that is judged.
        quick: The options of a short run.
        start: What comes after `python` to start it.
    """

    main: Callable[..., None]
    name: str
    docstring: str
    expected: Mapping[str, tuple[float, float]]
    quick: Mapping[str, Any]
    start: tuple[str, ...]

    @classmethod
    def of(cls, main: Callable[..., None]) -> "Recipe":
        """Return the recipe whose module `main` was made in."""
        module = main.__globals__
        path, package = Path(module["__file__"]), module.get("__package__")
        start = ("-m", f"{package}.{path.stem}") if package else (str(path),)
        docstring = inspect.cleandoc(module["__doc__"] or "")
        expected, quick = module.get("EXPECTED", {}), module.get("QUICK", {})
        return cls(main, path.stem, docstring, expected, quick, start)

    @classmethod
    def read(cls, path: Path) -> "Recipe":
        """Return the recipe in a file, with a `main` that does nothing.

        Only what its signature, `EXPECTED` and `QUICK` are made of is run: nothing waits for TensorFlow.
        """
        tree = ast.parse(path.read_text(encoding="utf-8"))
        made_by = {name: node for node in tree.body for name in _names(node)}
        main = made_by["main"]
        assert isinstance(main, ast.FunctionDef)
        main.body = main.body[:1]  # the docstring
        main.args.args[0].annotation = main.returns = None  # `Run` is not needed either
        wanted, kept = ["main", "EXPECTED", "QUICK"], []
        for name in wanted:  # which grows
            node = made_by.get(name)
            if node is not None and node not in kept:
                kept.append(node)
                wanted += [part.id for part in ast.walk(node) if isinstance(part, ast.Name)]
        body = [node for node in tree.body if node in kept]
        module = {"__doc__": ast.get_docstring(tree), "__file__": str(path), "__package__": path.parent.name}
        exec(compile(ast.Module(body, []), path, "exec"), module)
        return cls.of(module["main"])  # type: ignore[arg-type]

    @property
    def typed(self) -> str:
        """The command that runs it, as it was typed."""
        command = os.environ.get("RECIPES_COMMAND")  # set by what starts recipes by their names
        return f"{command} {self.name}" if command else " ".join(["python", *self.start])

    def parameters(self) -> dict[str, inspect.Parameter]:
        """Return the options of `main` by their names."""
        parameters = inspect.signature(self.main).parameters
        return {name: value for name, value in parameters.items() if value.kind is value.KEYWORD_ONLY}

    def defaults(self) -> dict[str, Any]:
        """Return the default value of each option."""
        return {name: parameter.default for name, parameter in self.parameters().items()}


def _names(node: ast.stmt) -> list[str]:
    """Return the names that a statement binds."""
    match node:
        case ast.Import(names) | ast.ImportFrom(names=names):
            return [alias.asname or alias.name.partition(".")[0] for alias in names]
        case ast.Assign(targets):
            return [target.id for target in targets if isinstance(target, ast.Name)]
        case ast.AnnAssign(target=ast.Name(name)) | ast.FunctionDef(name=name) | ast.ClassDef(name=name):
            return [name]
    return []
