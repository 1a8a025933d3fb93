"""The rules that keep the house in order, read from the source."""

import ast
import re
import subprocess
import sys

import pytest
from conftest import ROOT

import toolkit
from toolkit._lessons import take_apart

TOOLKIT = sorted((ROOT / "toolkit").rglob("*.py"))
RECIPES = sorted((ROOT / "recipes").glob("[!_]*.py"))
SCRIPTS = [path for path in (ROOT / "scripts").glob("*") if path.is_file()]
SOURCES = [*TOOLKIT, *RECIPES, *(ROOT / "tests").rglob("*.py"), *SCRIPTS]
LONGEST = 450  # lines of a file of the toolkit

# The floors of the house: a room may use rooms of its own floor's folder and of the floors below it.
FLOORS = [
    ["_files", "_checks", "_garbage", "_keras", "_lessons", "_tensorflow", "quiet"],
    [
        *("text", "scaling", "splits", "heads", "histories", "plotting", "drawing", "memory", "caching"),
        *("records", "workers", "data", "saving"),
    ],
    ["training"],
    ["run"],
    ["__init__"],
]


def room(path):
    """Return the part of the toolkit that a file belongs to: a module or a folder directly in it."""
    return path.relative_to(ROOT / "toolkit").parts[0].removesuffix(".py")


def floor(name):
    (number,) = (number for number, rooms in enumerate(FLOORS) if name in rooms)
    return number


def imports(path):
    """Return the names of all modules that a file imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def rooms_used(path):
    """Return the rooms of the toolkit that a file imports from, "toolkit" itself as `__init__`."""
    used = set()
    for name in imports(path):
        first, *rest = name.split(".")
        assert first != "recipes", f"{path}: the toolkit knows no recipe"
        if first == "toolkit":
            rooms = {each for floor in FLOORS for each in floor}
            used.add(rest[0] if rest and rest[0] in rooms else "__init__")
    return used


@pytest.mark.parametrize("path", TOOLKIT, ids=lambda path: str(path.relative_to(ROOT)))
def test_stairs_only_go_down(path):
    here = room(path)
    if here == "__init__":  # names every room, for type checkers
        return
    up = [name for name in rooms_used(path) - {here} if floor(name) > floor(here)]
    assert up == []


def test_the_floors_are_those_that_are_described():
    described = (ROOT / ".github/CONTRIBUTING.md").read_text()
    rooms = {each for floor in FLOORS[:-1] for each in floor}
    assert rooms == {room(path) for path in TOOLKIT} - {"__init__"}
    for number, line in re.findall(r"^\| (\d) \| (.*)", described, flags=re.MULTILINE):
        assert set(re.findall(r"`(\w+)`", line)) == set(FLOORS[int(number)])


def test_rooms_do_not_import_each_other_in_a_circle():
    uses = {}
    for path in TOOLKIT:
        uses.setdefault(room(path), set()).update(rooms_used(path) - {room(path)})
    uses.pop("__init__")
    while uses:
        free = {name for name, used in uses.items() if not used & set(uses)}
        assert free, f"a circle among {sorted(uses)}"
        for name in free:
            del uses[name]


@pytest.mark.parametrize("path", TOOLKIT, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_of_the_toolkit_is_short(path):
    assert len(path.read_text().splitlines()) <= LONGEST


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_imports_no_recipe_and_its_lines_can_be_read(path):
    others = {name for name in imports(path) if name.startswith("recipes")}
    assert not others, "what two recipes need goes to the toolkit"
    lines = path.read_text().splitlines()
    wide = [number for number, line in enumerate(lines, 1) if len(line) > 100]
    assert not wide, "break these lines: a recipe has 100 columns"
    assert len(lines) <= 220, "what is not the lesson goes to the toolkit, drawing say"


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_runs_nothing_on_import_and_shows_its_vocabulary(path):
    tree = ast.parse(path.read_text())
    kinds = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign)
    statements = [node for node in tree.body[1:] if not isinstance(node, kinds)]
    last = "if __name__ == '__main__':\n    cli(main)"
    assert [ast.unparse(node) for node in statements] == [last], (
        "end with this, and run nothing else on import"
    )
    source = path.read_text()
    assert "\nEXPECTED = {" in source, (
        "name the ranges of the scores: EXPECTED = {...}, or {} until they are known"
    )
    assert "\nQUICK = {" in source, "name the options of a short run: QUICK = {...}"
    training = [".compile(", "toolkit.fit", ".evaluate(", ".predict(", "toolkit.save("]
    lacking = [word for word in training if word not in source]
    assert lacking in ([], training), "a lesson with training shows all five calls, one without shows none"
    entries = take_apart(ast.get_docstring(tree)).entries
    lacking = [entry for entry in ("Teaches", "Data", "Source", "Takes", "Try next") if entry not in entries]
    assert not lacking, "the docstring at the top lacks these entries"


@pytest.mark.parametrize("path", TOOLKIT, ids=lambda path: path.stem)
def test_every_public_name_has_an_example_that_runs(path):
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name in toolkit.__all__:
            assert ">>> " in ast.get_docstring(node), f"{path.stem}.{node.name}"


def test_no_script_waits_for_a_window():
    here = "show"
    assert not [path.name for path in SOURCES if f"plt.{here}(" in path.read_text()]


def test_the_names_of_the_toolkit_are_there_and_no_others_are_promised():
    assert sorted(toolkit.__all__, key=lambda name: (not name[0].isupper(), name)) == toolkit.__all__
    assert set(toolkit._MODULE_OF) == set(toolkit.__all__) == set(dir(toolkit))
    for name in toolkit.__all__:
        module = f"toolkit.{toolkit._MODULE_OF[name]}"
        assert f"{getattr(toolkit, name).__module__}.".startswith(f"{module}.")  # its room, or a file in it
    tree = ast.parse((ROOT / "toolkit" / "__init__.py").read_text())
    (typed,) = (node for node in tree.body if isinstance(node, ast.If))
    assert {alias.name for node in typed.body for alias in node.names} == set(toolkit.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'fitt'"):
        toolkit.fitt  # noqa: B018


def test_light_helpers_do_not_wait_for_tensorflow():
    code = """
import sys, toolkit
toolkit.kfold(10, 2), toolkit.multi_hot([[1]], 2), toolkit.Standardizer.fit([[1.0], [2.0]])
toolkit.head([0, 1])
toolkit.plot_history({"loss": [1.0]}), toolkit.Data("sample").imdb(), toolkit.compile_cache
assert not {"tensorflow", "keras"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
