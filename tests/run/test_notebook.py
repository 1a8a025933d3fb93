"""Recipes as notebooks: what stands in their cells, and that they run to the command's own scores."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT
from nbclient import NotebookClient

import toolkit.run.notebook
from recipes.__main__ import names
from toolkit.run.notebook import notebook

LESSON = ROOT / "tests/lesson.py"
RECIPES = [ROOT / f"recipes/{name}.py" for name in names()]


def cells_of(path, kind):
    return [cell.source for cell in notebook(path).cells if cell.cell_type == kind]


@pytest.fixture(scope="module")
def text():
    return cells_of(LESSON, "markdown")


@pytest.fixture(scope="module")
def code():
    return cells_of(LESSON, "code")


def test_the_docstring_is_its_introduction(text):
    title, about, other, *entries = text[0].split("\n\n")
    assert title == "# Predict house prices, judged by k-fold cross-validation"
    assert about == "Cross-validate, train on all rows, and score the test rows."
    assert other == "Two lines that belong to no entry, one paragraph."
    assert [entry.split(" ")[0] for entry in entries] == [
        "**Teaches.**",
        "**Data.**",
        "**Source.**",
        "**Takes.**",
    ]
    assert entries[1].endswith(r"prices in thousands of \$.")  # which would begin a formula


def test_imports_are_those_that_the_cells_use(code):
    assert code[1].splitlines() == [
        "from pathlib import Path",
        "",
        "import keras",
        "import numpy as np",
        "from keras import layers",
        "",
        "import toolkit",
        "from toolkit.run import notebook",
    ]


def test_definitions_come_before_the_steps_and_nothing_that_is_for_the_command_does(code):
    assert code[2] == "# A constant that the lesson explains.\nSMALL = 0.5"
    assert code[3].startswith("def build_model(")
    assert code[4].startswith("def describe(")
    everything = "\n".join(code[1:])
    for word in ("EXPECTED", "QUICK", "cli", "def main", "Literal", "__name__", "--", "tyro"):
        assert word not in everything


def test_options_are_assignments_with_their_help(code):
    assert code[5].splitlines() == [
        "seed = 0  # Seed of every random choice: same seed, same numbers.",
        "folds = 4  # Parts that the training rows are cut into.",
        "epochs = 120  # Passes over the training rows.",
        "batch_size = 16  # Rows a step.",
        "# Width of the hidden layer, which is a number that one may well try to change, and see what",
        "# happens.",
        "units = 64",
        'loss = "mse"  # What training makes small. "mse" or "huber".',
        "shuffle = True  # Draw another order of the rows in each epoch.",
        "log = False  # Draw with a logarithmic axis.",
    ]
    assert code[6].splitlines()[-1] == 'run = notebook.start("lesson", seed=seed)'


def test_each_step_has_a_heading_and_comments_become_text(text):
    assert text[2:8] == [
        "## 1. Data\n\nEach row is a house. The test rows wait, unseen, until step 4.",
        "## 2. Baseline\n\nGuess the mean price every time. A model must beat this.",
        "## 3. Cross-validation, a fresh model for each fold",
        "fit_many trains all of them in one go.",
        "The lowest point of the mean curve chooses the number of epochs.",
        "## 4. The final model\n\nEvery training row, then one single look at the test rows.",
    ]


def test_a_cell_ends_where_something_is_shown(code):
    steps = code[7:]
    assert steps[0].splitlines()[1:] == [
        'text = """',
        "    The blanks of this string are its own,",
        '    and stay."""',
        "print(text)",
    ]
    assert "    shuffle=shuffle,\n)" in steps[3]  # and no checkpoint: no cell is resumed
    assert steps[3].endswith('run.figure("folds.png", toolkit.plot_folds(histories, "mae", log=log))')
    assert steps[5].endswith("callbacks=[run.log()]);")  # the History is not what the cell wants to show
    assert max(len(step.splitlines()) for step in steps) <= 12


def test_what_to_try_next_is_an_exercise_with_an_empty_cell(text, code):
    assert text[-1] == (
        '## Try next\n\n`units = 8` or 128, and `loss = "huber"`: what becomes of the score? '
        "`shuffle = False` and `log = True` are worth a try as well."
    )
    assert code[-1] == ""


def test_the_same_recipe_gives_the_same_file():
    assert nbformat.writes(notebook(LESSON)) == nbformat.writes(notebook(LESSON))


def test_a_main_that_takes_a_name_of_its_module_is_refused(tmp_path):
    path = tmp_path / "clash.py"
    path.write_text(LESSON.read_text().replace("best_epochs", "layers"))
    with pytest.raises(
        ValueError, match=r"must not bind a name of its module.* Received: layers in .*clash\.py"
    ):
        notebook(path)
    path.write_text("x = 1\n")
    with pytest.raises(ValueError, match="must hold a recipe, with `def main"):
        notebook(path)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_becomes_a_notebook(path):
    made = notebook(path)
    nbformat.validate(made)
    steps = re.findall(r"^    # (\d+)\. ", path.read_text(), flags=re.MULTILINE)
    text = cells_of(path, "markdown")
    assert [cell.split()[1] for cell in text if re.match(r"## \d", cell)] == [f"{step}." for step in steps]
    assert text[-1].startswith("## Try next")
    _, *code = cells_of(path, "code")
    for cell in code:
        ast.parse(cell)
        assert "cli(" not in cell
        assert not re.search(r"^ *checkpoint=run|\bof main\b|`main`", cell, flags=re.MULTILINE), cell
        if cell.endswith(";"):  # only where there is a value
            called = ast.unparse(ast.parse(cell).body[-1].value.func)
            assert re.search(r"\.(fit|save)$", called), called
    for cell in text:
        assert not re.search(r"(^| )--[a-z]", cell), cell
        assert "no part of the lesson" not in cell


@pytest.fixture
def jupyter(tmp_path, monkeypatch):
    """Let a kernel find this checkout, and leave nothing behind."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)  # a student has not set it either
    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))

    def execute(made):
        with monkeypatch.context() as inside:
            inside.chdir(tmp_path)
            inside.delenv("PYTEST_CURRENT_TEST")  # where it is set, a kernel does not catch what C++ writes
            NotebookClient(made, timeout=300, resources={"metadata": {"path": tmp_path}}).execute()
        return [output for cell in made.cells if cell.cell_type == "code" for output in cell.outputs]

    return execute


def pictures(outputs):
    return [output for output in outputs if "image/png" in output.get("data", {})]


def noise(outputs):
    return "".join(output["text"] for output in outputs if output.get("name") == "stderr")


def on_the_sample(path, made, options):
    """Change the options of a notebook as a student would, and let it print its scores in the end."""
    for name, value in options.items():
        (cell,) = (cell for cell in made.cells if cell.source.startswith("seed = "))
        cell.source, count = re.subn(
            rf"^{name} = .*$", f"{name} = {value!r}", cell.source, flags=re.MULTILINE
        )
        assert count == 1
    (cell,) = (cell for cell in made.cells if "notebook.start(" in cell.source)
    cell.source = cell.source.replace("seed=seed)", 'seed=seed, data="sample")')
    made.cells.append(nbformat.v4.new_code_cell("import json\nprint(json.dumps(run.metrics))"))
    return made


def quick_of(path):
    (node,) = (node for node in ast.parse(path.read_text()).body if ast.unparse(node).startswith("QUICK = "))
    return ast.literal_eval(node.value)


def slow(path):
    return pytest.param(path, marks=pytest.mark.slow, id=path.stem)


@pytest.mark.parametrize("path", [pytest.param(LESSON, id="lesson"), *map(slow, RECIPES)])
def test_a_notebook_gives_the_scores_of_the_command_exactly(path, jupyter, tmp_path):
    outputs = jupyter(on_the_sample(path, notebook(path), {"seed": 3} | quick_of(path)))
    module = ["-m", f"recipes.{path.stem}"] if path in RECIPES else [str(path)]
    options = ["--quick", "--data", "sample", "--seed", "3", "--out", str(tmp_path / "command")]
    command = subprocess.run([sys.executable, *module, *options], cwd=ROOT, capture_output=True, text=True)
    assert command.returncode == 0, command.stderr
    (report,) = (tmp_path / "command").rglob("report.json")
    scores, wanted = json.loads(outputs[-1]["text"]), json.loads(report.read_text())["metrics"]
    for each in (scores, wanted):
        each.pop("peak_megabytes", None)  # of the process, and a kernel is another one
    assert scores == wanted
    assert noise(outputs) == "" or command.stderr
    drawn = [path.name for path in report.parent.glob("*.png")]
    assert sorted(path.name for path in tmp_path.glob("runs/*/*/*.png")) == sorted(drawn)
    assert len(pictures(outputs)) >= len(drawn)


def test_a_recipe_that_is_run_inside_a_notebook_shows_its_figures_and_no_noise(jupyter, tmp_path):
    line = "%run -m recipes.boston -- --quick --data sample --out runs"
    outputs = jupyter(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(line)]))
    assert len(pictures(outputs)) == len(list(tmp_path.glob("runs/*/*/*.png"))) > 0
    assert noise(outputs) == ""


@pytest.mark.parametrize(
    ("variables", "hold"),
    [({}, True), ({"folds": 4, "loss": "mse"}, True), ({"folds": 5}, False), ({"loss": "mae"}, False)],
)
def test_the_ranges_hold_where_the_notebook_has_the_default_options(variables, hold, tmp_path, monkeypatch):
    monkeypatch.setattr(
        toolkit.quiet, "start", lambda: None
    )  # it is for a process that ends with the notebook
    variables |= {"notebook": toolkit.run.notebook, "folder": tmp_path}
    exec('run = notebook.start("boston", data="sample", out=folder)', variables)
    assert variables["run"].judged() is hold


def command(*args, cwd):
    return subprocess.run(
        [sys.executable, "-m", "recipes", "notebook", *args],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


def test_the_command_writes_a_notebook_at_once_and_never_over_another_file(tmp_path):
    result = command("imdb", cwd=tmp_path)
    assert (result.returncode, result.stdout) == (0, "Written: imdb.ipynb\n"), result.stderr
    assert nbformat.read(tmp_path / "imdb.ipynb", as_version=4) == notebook(ROOT / "recipes/imdb.py")
    (tmp_path / "imdb.ipynb").write_text("my work")
    result = command("imdb", cwd=tmp_path)
    assert result.returncode == 1
    assert "imdb.ipynb is there already" in result.stderr
    assert (tmp_path / "imdb.ipynb").read_text() == "my work"
    assert command("imdb", "--out", "other.ipynb", cwd=tmp_path).returncode == 0
    assert Path(tmp_path, "other.ipynb").is_file()
    result = command("imbd", cwd=tmp_path)
    assert result.returncode == 2
    assert "Did you mean imdb?" in result.stderr


def test_making_a_notebook_does_not_wait_for_tensorflow():
    code = """
import sys, pathlib, toolkit.run.notebook
toolkit.run.notebook.notebook(pathlib.Path("recipes/imdb.py"))
assert not {"tensorflow", "keras"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
