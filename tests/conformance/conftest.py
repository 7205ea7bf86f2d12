"""The frontend before a fake Triton, as tests/frontend starts it, for programs that others wrote."""

import asyncio

import pytest

from tests.frontend.conftest import client, engine_dir, frontend, guarded, http, mixtral, session_frontend, triton

__all__ = ["client", "engine_dir", "frontend", "guarded", "http", "mixtral", "session_frontend", "triton"]


def pytest_configure(config: pytest.Config) -> None:
    """The marks that LangChain's tests carry."""
    for marker in ("benchmark: measures", "vcr: replays recordings"):
        config.addinivalue_line("markers", marker)


@pytest.fixture(scope="session", autouse=True)
def _no_event_loop() -> None:
    """Say so, or asyncio makes one when pytest-asyncio looks for it, which nobody would close."""
    asyncio.set_event_loop(None)
