"""Who may import whom: formats do not know each other, the middle does no I/O."""

import ast
from pathlib import Path

import pytest

FRONTEND = Path(__file__).parents[2] / "frontend"

MIDDLE: dict[str, set[str]] = {
    "errors": set(),
    "generation": set(),
    "messages": {"tools"},
    "settings": set(),
    "protocol": {"generation", "tools"},
    "engine_dir": {"errors"},
    "template": {"errors", "messages", "tools"},
    "tokenizer": {"errors", "generation"},
    "text": {"generation"},
    "metrics": {"generation", "text"},
    "served_model": {"generation", "template", "tokenizer"},
    "parameters": {"errors", "generation", "protocol"},
    "reply": {"errors", "generation", "protocol"},
    "requests": {"errors", "generation", "parameters", "protocol", "served_model", "tools"},
    "chat_reply": {"errors", "generation", "protocol", "reply", "tools"},
    "chat": {
        "chat_reply", "errors", "generation", "messages", "parameters", "protocol", "reply", "requests", "served_model",
        "template", "tokenizer", "tools",
    },
    "structured_output": {"errors", "guides", "protocol", "served_model", "tools"},
    "completions": {"errors", "generation", "parameters", "protocol", "reply", "requests", "served_model"},
    "responses_items": {"generation", "protocol", "reply", "tools"},
    "responses_reply": {"errors", "generation", "protocol", "reply", "responses_items", "tools"},
    "responses": {
        "errors", "messages", "parameters", "protocol", "reply", "requests", "responses_reply", "served_model", "tools",
    },
    "tensors": {"errors", "generation"},
}  # fmt: skip
RIM: dict[str, set[str]] = {
    "admission": {"errors"},
    "exchange": {"errors"},
    "sender": set(),
    "triton": {"errors", "exchange", "generation", "tensors"},
    "kv_cache": set(),
    "metrics_text": {"admission", "kv_cache", "metrics"},
    "client_stays": {"errors"},
    "service": {"admission", "guides", "metrics", "served_model", "triton"},
    "request_ids": set(),
    "api_keys": {"errors"},
    "access": {"answers", "api_keys", "errors"},
    "layers": {"access", "api_keys", "request_ids", "sender"},
    "server": {"errors", "settings"},
    "answers": {"admission", "client_stays", "errors", "generation", "reply", "sender", "service", "text"},
    "routes": {
        "answers", "chat", "client_stays", "completions", "errors", "generation", "guides", "kv_cache", "metrics_text",
        "parameters", "protocol", "reply", "responses", "service", "structured_output",
    },
    "app": {"answers", "client_stays", "errors", "protocol", "routes", "service"},
}  # fmt: skip
"""A package stands for all its modules, and may use itself."""


def trees(module: str) -> list[ast.Module]:
    file = FRONTEND / f"{module}.py"
    return [ast.parse(path.read_text()) for path in ([file] if file.exists() else (FRONTEND / module).glob("*.py"))]


def own_imports(tree: ast.Module, module: str) -> set[str]:
    """Modules and packages of the frontend that are used, by their first name."""
    froms = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    inside = (FRONTEND / module).is_dir()  # a relative import stays in the package there
    relative = {str(node.module).split(".")[0] for node in froms if node.level and not inside}
    absolute = {str(node.module).split(".")[1] for node in froms if str(node.module).startswith("frontend.")}
    return (relative | absolute) - {module}


@pytest.mark.parametrize(("module", "allowed"), [*MIDDLE.items(), *RIM.items()])
def test_module_imports_only_what_it_may(module: str, allowed: set[str]) -> None:
    for tree in trees(module):
        assert own_imports(tree, module) <= allowed


@pytest.mark.parametrize("module", MIDDLE)
def test_nothing_is_asynchronous_and_nothing_is_http_in_the_middle(module: str) -> None:
    nodes = [node for tree in trees(module) for node in ast.walk(tree)]
    assert not [
        node for node in nodes if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith)
    ]
    imported = {alias.name.split(".")[0] for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    imported |= {
        str(node.module).split(".")[0] for node in nodes if isinstance(node, ast.ImportFrom) and not node.level
    }
    assert imported.isdisjoint({"fastapi", "starlette", "aiohttp", "uvicorn", "tritonclient", "asyncio"})
