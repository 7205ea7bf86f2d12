"""Who may import whom in the package, and what it may take from outside: values first, formats apart, no I/O."""

import ast
from pathlib import Path

import pytest

import frontend.tools

PACKAGE = Path(frontend.tools.__file__).parent

MAY_IMPORT: dict[str, set[str]] = {
    "__init__": set(),
    "calls": set(),
    "nesting": set(),
    "parser": {"calls", "nesting"},
    "prompt": {"calls", "frontend.messages"},
    "documents": {"calls", "prompt", "frontend.messages"},
    "wire": {"calls", "prompt", "frontend.errors", "frontend.messages", "frontend.protocol.fields"},
    "guide": {"calls", "frontend.errors", "frontend.guides.spec"},
}


def test_every_module_has_its_rule() -> None:
    assert {path.stem for path in PACKAGE.glob("*.py")} == MAY_IMPORT.keys()


@pytest.mark.parametrize("module", MAY_IMPORT)
def test_module_imports_only_what_it_may(module: str) -> None:
    nodes = list(ast.walk(ast.parse((PACKAGE / f"{module}.py").read_text())))
    imports = [str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)]
    own = {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom) and node.level}
    ours = own | {name for name in imports if name.startswith("frontend")}
    assert ours <= MAY_IMPORT[module]
    others = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names} | set(imports)
    assert others.isdisjoint({"asyncio", "fastapi", "aiohttp", "pathlib", "socket"})
    assert not [node for node in nodes if isinstance(node, ast.AsyncFunctionDef | ast.Await)]
