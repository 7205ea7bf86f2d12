"""Who may import whom: formats do not know each other, the middle does no I/O."""

import ast
from pathlib import Path

import pytest

FRONTEND = Path(__file__).parents[2] / "frontend"

MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "generation": set(),
    "messages": {"tools.calls"},
    "settings": set(),
    "protocol": {"generation"},
    "engine_dir": {"errors"},
    "template": {"errors", "messages", "tools.calls", "tools.documents", "tools.prompt"},
    "tokenizer": {"errors", "generation"},
    "text": {"generation"},
    "parameters": {"errors", "generation", "protocol"},
    "chat": {"errors", "generation", "messages", "parameters", "protocol", "template", "tokenizer"},
    "tensors": {"errors", "generation"},
    "admission": {"errors"},
    "exchange": {"errors"},
    "triton": {"errors", "exchange", "generation", "tensors"},
    "service": {"admission", "chat", "triton"},
    "sender": set(),
    "responses": {"chat", "errors", "generation", "sender", "service", "text"},
    "app": {"chat", "errors", "generation", "parameters", "protocol", "responses", "service"},
}
RIM = {"__main__", "admission", "app", "exchange", "responses", "sender", "triton"}


def tree(module: str) -> ast.Module:
    return ast.parse((FRONTEND / f"{module}.py").read_text())


@pytest.mark.parametrize("module", MAY_IMPORT)
def test_module_imports_only_what_it_may(module: str) -> None:
    used = {node.module for node in ast.walk(tree(module)) if isinstance(node, ast.ImportFrom) and node.level}
    assert used <= MAY_IMPORT[module]


@pytest.mark.parametrize("module", MAY_IMPORT.keys() - RIM)
def test_nothing_is_asynchronous_and_nothing_is_http_in_the_middle(module: str) -> None:
    nodes = list(ast.walk(tree(module)))
    assert not [
        node for node in nodes if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith)
    ]
    imported = {alias.name.split(".")[0] for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    imported |= {
        str(node.module).split(".")[0] for node in nodes if isinstance(node, ast.ImportFrom) and not node.level
    }
    assert imported.isdisjoint({"fastapi", "starlette", "aiohttp", "uvicorn", "tritonclient", "asyncio"})
