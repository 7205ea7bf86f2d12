"""docs/structure.md names files and folders that exist, and shows every folder of the code."""

import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from .pages import ROOT, prose, snippets

PAGE = ROOT / "docs" / "structure.md"
ROOTS = (
    "",
    "frontend",
    "frontend/guided_decoding",
    "build_engine",
    "build_engine/tensorrt_llm",
    "build_engine/openvino",
    "model_repository/openvino/1",
)
"""Where a path that the page names may begin: each step is about one of these folders."""

REMARKS_COLUMN = 25

PACKAGES = ("frontend", "build_engine")


def tree() -> list[str]:
    """Paths of the page's tree: two spaces for each level, a name, and remarks behind it, perhaps on further lines."""
    block = PAGE.read_text().split("## The tree")[1].split("```")[1]
    paths, parents = list[str](), [""]
    for line in block.strip().splitlines():
        if line.startswith(" " * REMARKS_COLUMN):
            continue
        level, name = (len(line) - len(line.lstrip())) // 2, line.split()[0]
        parents[level + 1 :] = [parents[level] + name]
        paths.append(parents[level] + name)
    return paths


def relative(paths: Iterable[Path]) -> set[str]:
    """Paths from the repository's root, folders with a slash behind."""
    return {f"{path.relative_to(ROOT)}{'/' if path.is_dir() else ''}" for path in paths if path.name != "__pycache__"}


def test_the_tree_has_every_folder_and_every_module_beside_them() -> None:
    folders = [path for package in PACKAGES for path in (ROOT / package).rglob("*") if path.is_dir()]
    suites = [path for path in (ROOT / "tests").iterdir() if path.is_dir()]
    modules = [path for package in PACKAGES for path in (ROOT / package).glob("*.py") if path.name != "__init__.py"]
    assert relative([*folders, *suites, *modules]) - set(tree()) == set()


@pytest.mark.parametrize("path", tree())
def test_every_path_of_the_tree_exists(path: str) -> None:
    assert (ROOT / path).exists()


PATHS = sorted({path for path in snippets(prose(PAGE)) if re.fullmatch(r"[\w/.]+(\.py|/)", path)})


@pytest.mark.parametrize("path", PATHS)
def test_every_path_of_the_text_exists(path: str) -> None:
    assert [root for root in ROOTS if (ROOT / root / path).exists()], path
