"""Published clients and test suites, run against the frontend and fake Triton that tests/frontend starts."""

import asyncio

import pytest

from tests.frontend.conftest import client, engine_dir, frontend, guarded, http, mixtral, session_frontend, triton

__all__ = ["client", "engine_dir", "frontend", "guarded", "http", "mixtral", "session_frontend", "triton"]


def pytest_configure(config: pytest.Config) -> None:
    """Register the marks that LangChain's tests use."""
    for marker in ("benchmark: measures", "vcr: replays recordings"):
        config.addinivalue_line("markers", marker)


@pytest.fixture(scope="session", autouse=True)
def _no_event_loop() -> None:
    """Set no event loop. Otherwise asyncio creates one when pytest-asyncio asks for it, and it is never closed."""
    asyncio.set_event_loop(None)
