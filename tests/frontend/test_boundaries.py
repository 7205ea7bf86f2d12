"""Which folder may import which: only folders below it.

`text`, `openai` and `anthropic` are pure: no HTTP, nothing asynchronous.
"""

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
    "openai": {"text", "guided_decoding"},
    "openai.tools": {"text", "openai"},
    "openai.chat": {"text", "openai", "openai.tools"},
    "openai.completions": {"text", "openai"},
    "openai.responses": {"text", "guided_decoding", "openai", "openai.tools"},
    "openai.tokenize": {"openai", "openai.chat"},
    "openai.invocations": {"text", "openai", "openai.chat", "openai.completions"},
    "anthropic": {"text", "guided_decoding", "openai", "openai.tools"},
    "server": {"text", "triton", "guided_decoding", "openai", "anthropic"},
    "server.middleware": {"anthropic", "server"},
    "server.routes": {
        "text", "triton", "openai", "openai.chat", "openai.completions", "openai.responses", "openai.tokenize",
        "openai.invocations", "anthropic", "server",
    },
    "workers": {"triton", "server"},
    "local": set(),
    "terminal_chat": set(),
    "first_run": {"local"},
}  # fmt: skip
"""Each folder, and the folders below it that it may import. It must import every one of them."""

APP = "server.app"
"""The one module that imports the routes of its folder; no module of `server` imports it."""

PURE = [folder for folder in MAY_IMPORT if folder.startswith(("text", "openai", "anthropic"))]


def modules(folder: str) -> Iterator[tuple[str, ast.Module]]:
    """The modules of a folder, without those of its subfolders, by their dotted names without `frontend.`."""
    for path in (FRONTEND / folder.replace(".", "/")).glob("*.py"):
        yield f"{folder}.{path.stem}", ast.parse(path.read_text())


def folders_of(name: str) -> str:
    """The folder that a module is in: `openai.chat` of `openai.chat.types`."""
    parts = name.split(".")
    while parts and not (FRONTEND / "/".join(parts)).is_dir():
        parts.pop()
    return ".".join(parts)


def imported_folders(tree: ast.Module, folder: str) -> set[str]:
    """The other folders that a module imports, and the modules beside the folders."""
    return {folders_of(name) or name for name in imported_names(tree, folder)} - {folder}


def imported_names(tree: ast.Module, folder: str) -> Iterator[str]:
    """What a module imports from the frontend, as dotted names without `frontend.`, relative imports included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            yield f"{folder}.{node.module}" if node.module else folder
        elif isinstance(node, ast.ImportFrom) and str(node.module).startswith("frontend."):
            yield str(node.module).removeprefix("frontend.")


def test_every_folder_has_a_rule() -> None:
    folders = {path.parent for path in FRONTEND.rglob("*.py")} - {FRONTEND}
    assert {".".join(folder.relative_to(FRONTEND).parts) for folder in folders} == MAY_IMPORT.keys()


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_folder_imports_only_what_is_below_it(folder: str) -> None:
    used = {module: imported_folders(tree, folder) for module, tree in modules(folder)}
    assert used.pop(APP, {"server.routes"}) <= MAY_IMPORT["server.routes"] | {"server.routes"}
    for module, folders in used.items():
        assert folders <= MAY_IMPORT[folder] | VALUES, module
    assert MAY_IMPORT[folder] - set().union(*used.values()) == set(), "allowed and not used"


def test_the_terminal_chat_is_a_client_and_knows_nothing_of_the_server() -> None:
    assert not [module for module, tree in modules("terminal_chat") if imported_folders(tree, "terminal_chat")]


def test_no_two_folders_import_each_other() -> None:
    assert not [
        (folder, other) for folder, below in MAY_IMPORT.items() for other in below if folder in MAY_IMPORT[other]
    ]


def test_no_folder_imports_the_app() -> None:
    def names(tree: ast.Module) -> set[str]:
        return {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}

    assert not [
        module for folder in MAY_IMPORT for module, tree in modules(folder) if names(tree) & {"app", f"frontend.{APP}"}
    ]


@pytest.mark.parametrize("folder", PURE)
def test_pure_folders_have_no_asynchronous_code_and_no_http(folder: str) -> None:
    for module, tree in modules(folder):
        nodes = list(ast.walk(tree))
        asynchronous = ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith
        assert not [node for node in nodes if isinstance(node, asynchronous)], module
        imported = {alias.name.split(".")[0] for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        imported |= {
            str(node.module).split(".")[0] for node in nodes if isinstance(node, ast.ImportFrom) and not node.level
        }
        assert imported.isdisjoint({"fastapi", "starlette", "aiohttp", "uvicorn", "tritonclient", "asyncio"}), module
