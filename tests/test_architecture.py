"""The rules that keep the house in order, read from the source."""

import ast
import subprocess
import sys

import pytest
from conftest import ROOT

import toolkit

TOOLKIT = sorted((ROOT / "toolkit").glob("[!_]*.py"))
RECIPES = sorted((ROOT / "recipes").glob("[!_]*.py"))
SOURCES = [*TOOLKIT, *RECIPES, *(ROOT / "tests").glob("*.py"), *(ROOT / "scripts").glob("*")]


def imports(path):
    """Return the names of all modules that a file imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", TOOLKIT, ids=lambda path: path.stem)
def test_a_toolkit_module_imports_no_sibling(path):
    siblings = {name for name in imports(path) if name.split(".")[0] in ("toolkit", "recipes")}
    if path.stem == "run":  # stands above the others
        siblings = {name for name in siblings if name.startswith("recipes")}
    assert siblings == set()


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_imports_no_recipe_and_fits_on_a_page(path):
    assert not {name for name in imports(path) if name.startswith("recipes")}
    lines = path.read_text().splitlines()
    assert len(lines) <= 100
    assert max(map(len, lines)) <= 110


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_runs_nothing_on_import_and_shows_its_vocabulary(path):
    tree = ast.parse(path.read_text())
    kinds = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign)
    statements = [node for node in tree.body[1:] if not isinstance(node, kinds)]
    assert [ast.unparse(node) for node in statements] == ["if __name__ == '__main__':\n    cli(main)"]
    source = path.read_text()
    assert "\nEXPECTED = {" in source
    assert "\nQUICK = {" in source
    training = [".compile(", "toolkit.fit", ".evaluate(", ".predict(", "toolkit.save("]
    assert [word for word in training if word in source] in (training, [])  # none: a lesson without training
    for entry in ("Teaches  ", "Data  ", "Source  ", "Takes  ", "Try next  "):
        assert f"\n{entry}" in ast.get_docstring(tree)


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
        assert getattr(toolkit, name).__module__ == f"toolkit.{toolkit._MODULE_OF[name]}"
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
toolkit.plot_history({"loss": [1.0]}), toolkit.Data("sample").imdb()
assert not {"tensorflow", "keras"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
