"""What the README says, held against the tree."""

import re
import shlex
import subprocess
import sys

import pytest
from conftest import ROOT

import toolkit
from recipes.__main__ import names, table

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def test_the_table_is_generated():
    assert "| 0.885 |" in table()  # an entry of the docstring with a single space after its name
    assert table() in README, "put the output of `python -m recipes --table` into the README"


def test_every_public_name_is_in_the_table():
    (rows,) = re.findall(r"^\| name \| what it does \|\n(.*?)\n\n", README, flags=re.MULTILINE | re.DOTALL)
    listed = {name for line in rows.splitlines() for name in re.findall(r"`(\w+)`", line.split("|")[1])}
    assert listed >= set(toolkit.__all__)


def test_every_command_names_a_file_or_a_module_that_is_there():
    commands = [shlex.split(line) for kind, text in BLOCKS if kind == "sh" for line in text.splitlines()]
    assert [words[0] for words in commands[:2]] == ["scripts/recipe", "scripts/test"]
    for words in commands:
        if words[0].startswith("scripts/"):
            assert (ROOT / words[0]).stat().st_mode & 0o111
        if words[0] == "scripts/recipe":
            assert words[1] in names() or words[1] == "--table"
        if words[-1].startswith("recipes."):
            assert words[-1].removeprefix("recipes.") in names()


def test_the_python_examples_run(tmp_path):
    examples = [text for kind, text in BLOCKS if kind == "python"]
    assert examples
    for text in examples:
        result = subprocess.run([sys.executable, "-c", text], cwd=tmp_path, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("link", re.findall(r"\]\((?!http)([^)#]+)\)", README))
def test_links_lead_somewhere(link):
    assert (ROOT / link).exists()
