"""Renews the pictures of docs/pages.md: pytest tests/frontend/pages/screenshots.py."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.sync_api import Page

from tests.frontend.conftest import Running
from tests.frontend.fake_triton import Events, FakeTriton

from .conftest import NARROW, OpenTab

PICTURES = Path(__file__).parents[3] / "docs" / "pages"
MAX_BYTES = 150_000

ANSWER = """A house is a **building** in which people live. In short:

1. It has *walls*, a roof and a door.
2. It keeps out rain and wind.

| Kind | Rooms |
|---|---|
| hut | 1 |
| villa | 12 |

As a value in Python:

```python
house = {"rooms": 4, "roof": True}
print(house["rooms"])
```
"""

METRICS = """\
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="used",model="openvino",version="1"} 412
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="free",model="openvino",version="1"} 588
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="max",model="openvino",version="1"} 1000
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="tokens_per",model="openvino",version="1"} 32
"""


def take(page: Page, name: str) -> None:
    page.screenshot(path=PICTURES / f"{name}.png")
    assert (PICTURES / f"{name}.png").stat().st_size < MAX_BYTES


def ask(page: Page, text: str) -> None:
    page.get_by_label("Message", exact=True).fill(text)
    page.keyboard.press("Enter")


def test_chat(open_tab: OpenTab, triton: FakeTriton, writes: Callable[..., Events]) -> None:
    triton.script = [writes(ANSWER, seconds=3)]
    looks: dict[str, dict[str, Any]] = {"wide": {}, "dark": {"color_scheme": "dark"}, "narrow": {"viewport": NARROW}}
    for name, options in looks.items():
        page = open_tab(**options).page
        ask(page, "What is a house?")
        page.get_by_text("A house is a").wait_for()
        if name == "wide":
            page.get_by_text("It keeps out rain").wait_for()
            take(page, "streaming")
        page.get_by_role("button", name="Regenerate").wait_for()
        page.get_by_role("button", name="Send").wait_for()
        take(page, name)


def test_error(open_tab: OpenTab) -> None:
    tab = open_tab()
    page = tab.page
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("Temperature").fill("7")
    page.get_by_role("button", name="Close").click()
    ask(page, "What is a house?")
    page.get_by_role("button", name="Try again").wait_for()
    take(page, "error")
    tab.expect_failed_requests()


def test_status(open_tab: OpenTab, frontend: Running, triton: FakeTriton, writes: Callable[..., Events]) -> None:
    triton.metrics = METRICS
    triton.script = [writes(ANSWER, seconds=6)]
    page, chat = open_tab("/status").page, open_tab().page
    for _ in range(2):
        ask(chat, "What is a house?")
        chat.get_by_role("button", name="Send").wait_for()
        page.wait_for_timeout(3000)
    ask(chat, "What is a house?")
    page.wait_for_timeout(4000)
    take(page, "status")
    chat.get_by_role("button", name="Send").wait_for()


def test_docs(open_tab: OpenTab) -> None:
    page = open_tab("/docs").page
    page.get_by_text("/v1/chat/completions", exact=True).click()
    take(page, "api")
