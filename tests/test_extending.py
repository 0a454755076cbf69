# SPDX-License-Identifier: Apache-2.0
"""The recipes of docs/extending.md work as they stand, one by one and all together."""

import json
import os
import re
import shlex
import shutil
from typing import NamedTuple

import pytest

from tests import programs
from tests.helpers import ROOT

PAGE = ROOT / "docs" / "extending.md"
# What each recipe adds to --help of train.py.
TITLES = {
    "A network": "tiny_resnet",
    "An offline augmentation": "--thicken",
    "An online augmentation: geometry": "--squeeze",
    "An online augmentation: grey levels": "--gamma",
    "An update rule": "lion",
    "A loss": "focal",
    "A dataset": "led",
    "A setting": "--gradient_noise",
}
# A block: python for a new file, diff for a change of one, or commands. The line above
# the first two names the file.
BLOCK = re.compile(r"^(?:`([\w/.]+)`[^\n]*:\n\n)?```(\w*)\n(.*?)^```$", re.M | re.S)


class Recipe(NamedTuple):
    """A section of the page: (file, kind, block) of each change, and its commands."""

    title: str
    changes: list[tuple[str, str, str]]
    commands: list[list[str]]


def read(section):
    title, _, text = section.partition("\n")
    blocks = BLOCK.findall(text)
    lines = "".join(block for _, kind, block in blocks if not kind)
    commands = [shlex.split(line) for line in lines.replace("\\\n", "").splitlines()]
    return Recipe(title, [block for block in blocks if block[1]], commands)


RECIPES = [read(section) for section in PAGE.read_text("utf-8").split("\n## ")[1:]]


def apply(recipe, tree):
    """Makes the changes of a recipe; each place must be there, and only once."""
    for name, kind, block in recipe.changes:
        path = tree / name
        if kind == "python":
            assert not path.exists(), f"{name} is not new"
            path.write_text(block, "utf-8")
            continue
        text = path.read_text("utf-8")
        for hunk in block.split("@@\n"):
            lines = [line or " " for line in hunk.splitlines()]
            old = "".join(f"{line[1:]}\n" for line in lines if line[0] != "+")
            new = "".join(f"{line[1:]}\n" for line in lines if line[0] != "-")
            assert text.count(f"\n{old}") == 1, f"{name} has not one place for:\n{hunk}"
            text = text.replace(f"\n{old}", f"\n{new}")
        path.write_text(text, "utf-8")


@pytest.fixture
def tree(tmp_path):
    """A copy of the sources, without what git ignores."""
    ignored = (ROOT / ".gitignore").read_text("utf-8").replace("/\n", "\n").split()
    copy = tmp_path / "tree"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", *ignored))
    return copy


def run(tree, words):
    """Runs a command of the page in a copy of the sources; returns what it prints."""
    assert words[0] == "python"
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    # It takes as long to load as all else that pytest needs, and would only report.
    environment["PYTEST_ADDOPTS"] = "-p no:hypothesispytest"
    report = "pytest" in words  # whose tests may read one
    done = programs.run(words[1:], cwd=tree, env=environment, report=report)
    assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def flags(words):
    return dict(re.findall(r"--(\w+)=(\S*)", " ".join(words)))


def test_no_recipe_is_missing():
    assert [recipe.title for recipe in RECIPES] == list(TITLES)
    assert all(recipe.changes and recipe.commands for recipe in RECIPES)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.title)
def test_recipe_works(recipe, tree):
    apply(recipe, tree)
    for words in recipe.commands:
        run(tree, words)
    written = flags(recipe.commands[0])  # the first one tries it
    if "preview" in written:
        picture = (tree / written["preview"]).read_bytes()
        assert picture.startswith(b"\x89PNG")
    else:
        result = json.loads((tree / written["run_dir"] / "result.json").read_text())
        assert result["test"]["errors"] < 0.5 * result["test"]["images"]


def test_all_recipes_together(tree):
    given = {}
    for recipe in RECIPES:
        apply(recipe, tree)
        given |= flags(recipe.commands[0])
    del given["preview"]
    given |= {"network": "tiny_resnet", "dataset": "led", "run_dir": "run"}
    given |= {"epochs": "1", "epoch_images": "640"}
    run(tree, ["python", "train.py", *(f"--{k}={v}" for k, v in given.items())])
    config = json.loads((tree / "run" / "run.json").read_text())["config"]
    help_text = run(tree, ["python", "train.py", "--help"])
    for word in TITLES.values():
        assert re.search(rf"{word}\b", help_text), word
        name = word.removeprefix("--")
        assert name in config.values() or float(config[name]) == float(given[name])
