"""Which folder may import which: only downwards, and what lies below `server` does no I/O but for `triton`."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

FRONTEND = Path(__file__).parents[2] / "frontend"

VALUES = {"errors", "generation", "settings", "engine_dir"}
"""Modules beside the folders: the core values, which every folder may use."""

MAY_IMPORT: dict[str, set[str]] = {
    "text": set(),
    "triton": set(),
    "guided_decoding": {"text"},
    "openai": {"text", "guided_decoding", "openai.responses"},
    "openai.tools": {"text", "openai"},
    "openai.chat": {"text", "guided_decoding", "openai", "openai.tools"},
    "openai.completions": {"text", "guided_decoding", "openai"},
    "openai.responses": {"text", "guided_decoding", "openai", "openai.tools"},
    "openai.tokenize": {"openai", "openai.chat"},
    "server": {"text", "triton", "guided_decoding", "openai"},
    "server.middleware": {"server"},
    "server.routes": {
        "text", "triton", "guided_decoding", "openai", "openai.chat", "openai.completions", "openai.responses",
        "openai.tokenize", "server",
    },
    "local": set(),
}  # fmt: skip
ENTRIES = {"server.app": MAY_IMPORT["server.routes"] | {"server.routes"}}
"""The module that puts its folder's routes together; whatever else may import it, its folder may not."""

PURE = [folder for folder in MAY_IMPORT if folder.startswith(("text", "openai"))]


def modules(folder: str) -> Iterator[tuple[str, ast.Module]]:
    """The modules that lie in a folder itself, by their dotted names without `frontend.`."""
    for path in (FRONTEND / folder.replace(".", "/")).glob("*.py"):
        yield f"{folder}.{path.stem}", ast.parse(path.read_text())


def folders_of(name: str) -> str:
    """The folder that a module lies in: `openai.chat` of `openai.chat.types`."""
    parts = name.split(".")
    while parts and not (FRONTEND / "/".join(parts)).is_dir():
        parts.pop()
    return ".".join(parts)


def imported_folders(tree: ast.Module, folder: str) -> set[str]:
    """Other folders of the frontend that a module uses, and modules beside the folders."""
    names = [
        str(node.module).removeprefix("frontend.")
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and not node.level and str(node.module).startswith("frontend.")
    ]
    return {folders_of(name) or name for name in names} - {folder}


def test_every_folder_has_its_rule() -> None:
    folders = {path.parent for path in FRONTEND.rglob("*.py")} - {FRONTEND}
    assert {".".join(folder.relative_to(FRONTEND).parts) for folder in folders} == MAY_IMPORT.keys()


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_folder_imports_only_what_is_below_it(folder: str) -> None:
    for module, tree in modules(folder):
        allowed = ENTRIES.get(module, MAY_IMPORT[folder])
        assert imported_folders(tree, folder) <= allowed | VALUES, module


@pytest.mark.parametrize("folder", PURE)
def test_nothing_is_asynchronous_and_nothing_is_http_in_the_middle(folder: str) -> None:
    for module, tree in modules(folder):
        nodes = list(ast.walk(tree))
        asynchronous = ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith
        assert not [node for node in nodes if isinstance(node, asynchronous)], module
        imported = {alias.name.split(".")[0] for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        imported |= {
            str(node.module).split(".")[0] for node in nodes if isinstance(node, ast.ImportFrom) and not node.level
        }
        assert imported.isdisjoint({"fastapi", "starlette", "aiohttp", "uvicorn", "tritonclient", "asyncio"}), module
