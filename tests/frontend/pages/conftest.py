"""The pages in Debian's chromium, in front of the frontend and its fake Triton.

After each test: no request left this machine, and the console has no error.
"""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from frontend.text.served_model import ServedModel
from tests.frontend.conftest import Running
from tests.frontend.fake_triton import Events

TIMEOUT_MS = 20_000
"""For one step, on a machine whose cores others use too."""

WIDE = {"width": 1280, "height": 800}
NARROW = {"width": 400, "height": 800}

ARGUMENTS = (
    "--no-sandbox",  # CI is root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's chromium: tests/frontend/pages/install.sh installs it. Playwright's own is not downloaded.

    Closed after each module: while Playwright runs, its event loop is that of the main thread, and no other can be.
    """
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium on the PATH; on Debian: tests/frontend/pages/install.sh")
    expect.set_options(timeout=TIMEOUT_MS)
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        yield launched
        launched.close()


@dataclass
class Tab:
    """A page, and what it did: URLs that it asked for, and errors on its console."""

    page: Page
    requests: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def expect_failed_requests(self) -> None:
        """For a test of an error: the browser notes each status from 400 on in its console."""
        self.problems = [text for text in self.problems if "Failed to load resource" not in text]


OpenTab = Callable[..., Tab]


@pytest.fixture
def open_tab(browser: Browser, frontend: Running) -> Iterator[OpenTab]:
    """Opens a path in a browser profile of its own; options are those of Playwright's contexts."""
    contexts: list[BrowserContext] = []
    tabs: list[Tab] = []

    def opened(path: str = "/", url: str = frontend.url, **options: Any) -> Tab:
        contexts.append(browser.new_context(base_url=url, **{"viewport": WIDE, **options}))
        tab = Tab(contexts[-1].new_page())
        tabs.append(tab)
        tab.page.set_default_timeout(TIMEOUT_MS)
        tab.page.on("request", lambda request: tab.requests.append(request.url))
        tab.page.on("console", lambda line: tab.problems.append(line.text) if line.type == "error" else None)
        tab.page.on("pageerror", lambda error: tab.problems.append(str(error)))
        tab.page.goto(path)
        return tab

    yield opened
    for context in contexts:
        context.close()
    own = (frontend.url, frontend.guarded_url, "blob:")
    assert [url for tab in tabs for url in tab.requests if not url.startswith(own)] == []
    assert [problem for tab in tabs for problem in tab.problems] == []


@pytest.fixture
def writes(mixtral: ServedModel) -> Callable[..., Events]:
    """An answer of the engine: a text, token by token, over so many seconds."""

    def to_events(text: str, seconds: float = 0.0) -> Events:
        token_ids = mixtral.tokenizer.encode(text)
        if not seconds:
            return Events([[token_id] for token_id in token_ids] + [[]])
        return Events(
            [[token_id] for token_id in token_ids] + [[]], bytes_per_write=150, pause_s=seconds / len(token_ids)
        )

    return to_events
