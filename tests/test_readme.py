"""The README tells the truth where a machine can check it."""

import re
from pathlib import Path

import pytest

from tests.parameter_table import table

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_table_of_parameters_is_what_the_code_does() -> None:
    """To renew it: python -m tests.parameter_table."""
    assert table() in README


def tree() -> list[str]:
    """Paths of the README's tree: two spaces per level, a name, and remarks behind it."""
    block = README.split("## Where things are")[1].split("```")[1]
    paths, parents = [], [""]
    for line in block.strip().splitlines():
        indent = len(line) - len(line.lstrip())
        if indent > 4:
            continue
        level, name = indent // 2, line.split()[0]
        parents[level + 1 :] = [parents[level] + name]
        paths.append(parents[level] + name)
    return paths


@pytest.mark.parametrize("path", tree())
def test_every_path_of_the_tree_exists(path: str) -> None:
    assert (ROOT / path).exists()


def test_every_folder_is_in_the_tree() -> None:
    folders = [path for package in ("build_engine", "frontend") for path in (ROOT / package).glob("[!_]*/")]
    assert not {folder.name for folder in folders if folder.is_dir() and f"  {folder.name}/" not in README}


def test_make_targets_that_the_readme_names_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`?make ([a-z-]+)\b", README)) <= targets
