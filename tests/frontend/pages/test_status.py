"""/status and /docs in a browser."""

from collections.abc import Callable

from playwright.sync_api import expect

from tests.frontend.conftest import API_KEY, CHAT, MODEL, Running
from tests.frontend.fake_triton import Endless, FakeTriton

from .conftest import NARROW, OpenTab
from .screenshots import METRICS

Read = Callable[[str], str]


def test_status_shows_load_cache_versions_and_limits(open_tab: OpenTab, triton: FakeTriton) -> None:
    triton.metrics, triton.script = METRICS, [Endless(21209)]
    chat = open_tab().page
    chat.get_by_label("Message", exact=True).fill("What is a house?")
    chat.keyboard.press("Enter")
    expect(chat.locator("article.assistant")).to_contain_text("Haus")
    page = open_tab("/status").page
    tiles = page.locator("#tiles")
    expect(tiles.locator("div", has_text="Running")).to_contain_text("1")
    expect(tiles.locator("div", has_text="KV cache")).to_contain_text("41 %")
    for name, value in {"Context": "4,096 tokens", "Models": MODEL, "Generations at a time": "4"}.items():
        expect(page.get_by_role("row", name=name)).to_contain_text(value)
    rates = page.get_by_role("img", name="Answers")
    expect(rates).not_to_have_attribute("aria-label", "Answers: tokens per second 0.0 tokens/s now")
    assert len((rates.locator("polyline").get_attribute("points") or "").split()) >= 1
    chat.get_by_role("button", name="Stop").click()


def test_status_asks_for_a_key_and_says_when_the_server_is_away(open_tab: OpenTab, frontend: Running) -> None:
    tab = open_tab("/status", url=frontend.guarded_url, viewport=NARROW)
    page = tab.page
    expect(page.locator("#tiles div")).to_have_count(0)
    page.get_by_label("API key").fill(API_KEY)
    page.keyboard.press("Enter")
    expect(page.locator("#tiles div")).to_have_count(6)
    page.route("**/metrics", lambda route: route.abort(), times=1)
    expect(page.get_by_role("alert")).to_contain_text("The server cannot be reached")
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("alert")).to_have_count(0)
    assert page.evaluate("document.documentElement.scrollWidth") == 400
    tab.expect_failed_requests()


def test_docs_lists_every_route_with_its_fields(open_tab: OpenTab) -> None:
    page = open_tab("/docs").page
    page.get_by_text(CHAT, exact=True).click()
    route = page.locator("details[open]")
    expect(route.get_by_role("row", name="messages *")).to_contain_text("list of ChatMessage")
    expect(route.get_by_role("row", name="temperature")).to_contain_text("number, 0 to 2")
    expect(route.get_by_role("row", name="429")).to_be_visible()
    expect(route).to_contain_text(f'"model":"{MODEL}"')
    described = page.evaluate("fetch('openapi.json').then(r => r.json()).then(d => Object.keys(d.paths).length)")
    assert page.locator("details").count() >= described
