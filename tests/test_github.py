"""What stands in .github and .pre-commit-config.yaml, held against the tree."""

import re

import pytest
from conftest import ROOT

GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
CONTRIBUTING = (GITHUB / "CONTRIBUTING.md").read_text(encoding="utf-8")
PAGES = {path.name: path.read_text(encoding="utf-8") for path in GITHUB.glob("*.md")}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned_by_hash_with_their_version_beside_it(path):
    used = re.findall(r"uses: *(.*)", path.read_text())
    assert used
    for action in used:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action), action


@pytest.mark.parametrize("path", [*WORKFLOWS, GITHUB / "CONTRIBUTING.md"], ids=lambda path: path.name)
def test_what_is_run_is_there(path):
    commands = re.findall(r"(?<![\w/.])(\.ci/\w+|scripts/\w+)(?![\w/.])", path.read_text())
    assert commands
    for command in commands:
        assert (ROOT / command).stat().st_mode & 0o111, command
    for file in re.findall(r"(?:tests|toolkit)/[\w/]+\.py", path.read_text()):
        assert (ROOT / file).is_file(), file


@pytest.mark.parametrize(("name", "text"), PAGES.items())
def test_links_lead_somewhere(name, text):
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", text):
        assert (GITHUB / link).exists(), f"{name}: {link}"


def test_the_changelog_has_the_headings_of_its_kind():
    headings = re.findall(r"^###? (.*)", PAGES["CHANGELOG.md"], flags=re.MULTILINE)
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert headings[0] == "[Unreleased]"
    for heading in headings:
        assert heading in kinds or re.fullmatch(
            r"\[Unreleased\]|\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", heading
        )
