"""The chat page as a user meets it: every answer comes through the public API."""

import json
import re
import threading
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.frontend.conftest import API_KEY, Running
from tests.frontend.fake_triton import Endless, Events, FakeTriton, Silence

from .conftest import NARROW, OpenTab

HAUS = 21209
"""The token of " Haus"."""

HOSTILE = """<img src=x onerror="document.title='hacked'"><script>document.title='hacked'</script>

[click](javascript:document.title='hacked') ![picture](http://evil.example/pixel.png) [fine](https://example.org/a_b)

<iframe src="http://evil.example/"></iframe> `<b>code</b>` **<i>bold</i>**

| a | <svg onload=alert(1)> |
|---|---|
| [x](data:text/html,<script>alert(1)</script>) | 2 |

```html" onclick="alert(1)
<script>document.title='hacked'</script>
```
"""

Writes = Callable[..., Events]


def ask(page: Page, text: str) -> None:
    page.get_by_label("Message", exact=True).fill(text)
    page.keyboard.press("Enter")


def answers(page: Page) -> list[str]:
    """The text of each answer, once none is generated any more."""
    expect(page.get_by_role("button", name="Send")).to_be_visible()
    return [text.strip() for text in page.locator("article.assistant .content").all_inner_texts()]


def button(page: Page, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).last.click()


def test_an_empty_chat_shows_the_checkpoints_note(open_tab: OpenTab) -> None:
    page = open_tab().page
    expect(page.locator(".empty")).to_have_text("Ask the model something.")
    page.route("**/tokenizer_info", lambda route: route.fulfill(json={"note": "A <b>demo</b>."}))
    page.reload()
    expect(page.locator(".empty small")).to_have_text("A <b>demo</b>.")


def test_an_answer_streams_with_its_figures(open_tab: OpenTab, triton: FakeTriton, writes: Writes) -> None:
    triton.script = [Endless(HAUS)]
    page = open_tab().page
    ask(page, "What is a house?")
    expect(page.locator("article.assistant")).to_contain_text("Haus Haus")
    expect(page.locator(".figures").last).to_have_text(
        re.compile(r"\d+ \+ \d+ tokens · first after [\d.]+ s · [\d.]+ tokens/s")
    )
    button(page, "Stop")
    assert page.title() == "mixtral-instruct-awq"


def test_stop_cancels_the_generation_and_keeps_its_text(open_tab: OpenTab, frontend: Running) -> None:
    frontend.triton.script = [Endless(HAUS)]
    page = open_tab().page
    for index, is_by_key in enumerate((False, True)):
        ask(page, "What is a house?")
        expect(page.locator("article.assistant").nth(index)).to_contain_text("Haus")
        if is_by_key:
            page.keyboard.press("Escape")
        else:
            button(page, "Stop")
        frontend.wait_until(lambda: frontend.triton.num_running == frontend.admission.num_running == 0)
        expect(page.locator("article.assistant .figures").nth(index)).to_contain_text("stopped")
    assert len(answers(page)) == 2


def test_a_question_that_was_stopped_before_its_answer_can_be_answered_later(
    open_tab: OpenTab, frontend: Running, writes: Writes
) -> None:
    ends = threading.Event()
    frontend.triton.script = [Silence(ends)]
    page = open_tab().page
    ask(page, "What is a house?")
    button(page, "Stop")
    expect(page.get_by_role("button", name="Get an answer")).to_be_visible()
    ends.set()
    frontend.triton.script = [writes("A building.")]
    button(page, "Get an answer")
    assert answers(page) == ["A building."]


def test_regenerate_replaces_the_answer(open_tab: OpenTab, triton: FakeTriton, writes: Writes) -> None:
    triton.script = [writes("A building.")]
    page = open_tab().page
    ask(page, "What is a house?")
    assert answers(page) == ["A building."]
    triton.script = [writes("A home.")]
    button(page, "Regenerate")
    expect(page.locator("article.assistant")).to_contain_text("A home.")
    assert answers(page) == ["A home."]
    assert triton.requests[0]["input_ids"] == triton.requests[1]["input_ids"]


def test_an_edited_message_goes_on_from_there(open_tab: OpenTab, triton: FakeTriton, writes: Writes) -> None:
    triton.script = [writes("A building.")]
    page = open_tab().page
    for question in ("What is a house?", "And a tent?"):
        ask(page, question)
        answers(page)
    page.get_by_role("button", name="Edit").first.click()
    page.get_by_label("Edit the message").fill("What is a boat?")
    page.keyboard.press("Enter")
    expect(page.locator("article.user .content")).to_have_text(["What is a boat?"])
    assert answers(page) == ["A building."]


def test_a_reload_keeps_the_conversation(open_tab: OpenTab, triton: FakeTriton, writes: Writes) -> None:
    triton.script = [writes("A building.")]
    page = open_tab().page
    ask(page, "What is a house?")
    assert answers(page) == ["A building."]
    page.reload()
    assert answers(page) == ["A building."]
    button(page, "New chat")
    assert answers(page) == []
    button(page, "What is a house?")
    assert answers(page) == ["A building."]
    button(page, "Delete What is a house?")
    assert answers(page) == []
    button(page, "Undo")
    assert answers(page) == ["A building."]


def test_what_has_come_of_an_answer_is_kept(open_tab: OpenTab, frontend: Running) -> None:
    """When the page is left, another conversation is opened, or this one is opened again or deleted."""
    frontend.triton.script = [Endless(HAUS)]
    page = open_tab().page
    answer = page.locator("article.assistant")

    def start() -> None:
        ask(page, "What is a house?")
        expect(answer.last).to_contain_text("Haus Haus")

    start()
    page.reload()
    assert answers(page)[0].startswith("Haus Haus")
    frontend.wait_until(lambda: frontend.triton.num_running == 0)
    start()
    button(page, "What is a house?")
    expect(answer).to_have_count(2)
    start()
    button(page, "Delete What is a house?")
    expect(page.get_by_text("Ask the model something.")).to_be_visible()
    expect(page.locator("#conversations li")).to_have_count(0)
    button(page, "Undo")
    expect(answer).to_have_count(3)
    frontend.wait_until(lambda: frontend.triton.num_running == 0)


def test_settings_reach_the_engine(open_tab: OpenTab, triton: FakeTriton, writes: Writes, frontend: Running) -> None:
    triton.script = [writes('{"a": 1}')]
    page = open_tab().page
    button(page, "Settings")
    page.get_by_label("System prompt").fill("Answer in German.")
    page.get_by_label("Temperature").fill("0.5")
    page.get_by_label("Top k").fill("7")
    page.get_by_label("Max tokens").fill("9")
    page.get_by_label("JSON schema").fill("{not JSON")
    expect(page.get_by_role("alert")).to_contain_text("This is not JSON")
    page.get_by_label("JSON schema").fill('{"type": "object"}')
    button(page, "Close")
    ask(page, "What is a house?")
    assert len(answers(page)) == 1
    [sent] = triton.requests
    assert (sent["temperature"], sent["runtime_top_k"], sent["request_output_len"]) == (0.5, 7, 9)
    assert sent["guided_decoding_guide"]


def test_the_exact_prompt_has_what_is_not_sent_yet(open_tab: OpenTab, triton: FakeTriton) -> None:
    page = open_tab().page
    page.get_by_label("Message", exact=True).fill("What is a house?")
    button(page, "Exact prompt")
    expect(page.locator("#prompt-text")).to_have_text("<s>[INST] What is a house? [/INST]")
    expect(page.locator("#prompt-tokens")).to_have_text("13 tokens, as the engine gets them")
    assert triton.requests == []


def test_export_and_curl(open_tab: OpenTab, triton: FakeTriton, writes: Writes, tmp_path: Path) -> None:
    triton.script = [writes("A building.")]
    tab = open_tab(permissions=["clipboard-read", "clipboard-write"])
    page = tab.page
    ask(page, "What's a house?")
    answers(page)
    with page.expect_download() as download:
        button(page, "Export JSON")
    download.value.save_as(tmp_path / "conversation.json")
    exported = json.loads((tmp_path / "conversation.json").read_text())
    assert [message["role"] for message in exported["messages"]] == ["user", "assistant"]
    button(page, "Copy curl")
    expect(page.get_by_text("The curl line is copied.")).to_be_visible()
    line = page.evaluate("navigator.clipboard.readText()")
    assert line.startswith(f"curl --no-buffer '{page.url}v1/chat/completions'")
    assert "What'\\''s a house?" in line


def test_a_key_is_asked_for_and_kept_in_the_tab_only(open_tab: OpenTab, frontend: Running, writes: Writes) -> None:
    frontend.triton.script = [writes("A building.")]
    tab = open_tab(url=frontend.guarded_url)
    page = tab.page
    expect(page.get_by_role("alert")).to_contain_text("No API key was given.")
    page.get_by_label("API key").fill("wrong")
    button(page, "Use this key")
    expect(page.get_by_role("alert")).to_have_text("The API key is not known here.")
    page.get_by_label("API key").fill(API_KEY)
    page.keyboard.press("Enter")
    expect(page.get_by_label("API key")).to_have_count(0)
    ask(page, "What is a house?")
    assert answers(page) == ["A building."]
    assert API_KEY in page.evaluate("JSON.stringify(sessionStorage)")
    assert API_KEY not in page.evaluate("JSON.stringify(localStorage)")
    tab.expect_failed_requests()


def test_an_error_is_shown_in_the_apis_words(open_tab: OpenTab) -> None:
    tab = open_tab()
    page = tab.page
    button(page, "Settings")
    page.get_by_label("Temperature").fill("7")
    button(page, "Close")
    ask(page, "What is a house?")
    expect(page.get_by_role("alert")).to_have_text("Invalid `temperature`: Input should be less than or equal to 2.")
    expect(page.locator(".notice")).to_contain_text("400 · field temperature")
    tab.expect_failed_requests()


def test_an_error_in_a_stream_keeps_what_came_before_it(open_tab: OpenTab, triton: FakeTriton, writes: Writes) -> None:
    triton.script = [Events([[HAUS], [HAUS]], pause_s=0.1), Events(["CUDA error"])]
    page = open_tab().page
    ask(page, "What is a house?")
    expect(page.get_by_role("alert")).to_be_visible()
    assert answers(page) == ["Haus Haus"]
    expect(page.locator(".figures").last).to_contain_text("broken off")
    triton.script = [writes("A building.")]
    button(page, "Try again")
    expect(page.locator(".figures").last).not_to_contain_text("broken off")
    assert answers(page) == ["A building."]


def test_a_429_counts_down_its_retry_after(open_tab: OpenTab, triton: FakeTriton, writes: Writes) -> None:
    triton.script = [writes("A building.")]
    tab = open_tab()
    page = tab.page
    refusal = {"error": {"message": "The queue is full.", "type": "rate_limit_error", "param": None, "code": None}}
    page.route(
        "**/completions", lambda route: route.fulfill(status=429, headers={"retry-after": "2"}, json=refusal), times=1
    )
    ask(page, "What is a house?")
    expect(page.get_by_role("alert")).to_have_text("The queue is full.")
    expect(page.get_by_role("button", name="Try again in 2 s")).to_be_disabled()
    page.get_by_role("button", name="Try again", exact=True).click()
    assert answers(page) == ["A building."]
    tab.expect_failed_requests()


def test_hostile_markdown_runs_nothing_and_loads_nothing(open_tab: OpenTab, triton: FakeTriton, writes: Writes) -> None:
    triton.script = [writes(HOSTILE)]
    page = open_tab().page
    page.on("dialog", lambda dialog: page.evaluate("document.title = 'hacked'"))
    ask(page, HOSTILE)
    [shown] = answers(page)
    assert "<script>document.title='hacked'</script>" in shown
    content = page.locator("article .content")
    assert content.locator("img, script, iframe, svg, i, b, [onclick], [onerror], [onload]").count() == 0
    links = content.locator("a").evaluate_all("links => links.map(link => [link.textContent, link.href, link.rel])")
    rel = "noopener noreferrer nofollow"
    assert links == [
        ["Image: picture", "http://evil.example/pixel.png", rel],
        ["fine", "https://example.org/a_b", rel],
        ["http://evil.example/", "http://evil.example/", rel],
    ]
    assert page.title() == "mixtral-instruct-awq"


def test_markdown_becomes_elements(open_tab: OpenTab, triton: FakeTriton, writes: Writes) -> None:
    triton.script = [
        writes(
            "# Head\n\nOne *two* **three** `4*5*6` snake_case_name 2 * 3 * 4\n\n- a\n  - b\n- c\n\n> said\n\n"
            "| x | y |\n|---|---|\n| 1 | 2 |\n\n```python\nprint(1)\n\nprint(2)\n```"
        )
    ]
    page = open_tab().page
    ask(page, "Show all")
    answers(page)
    content = page.locator("article.assistant .content")
    for selector, texts in {
        "h3": ["Head"],
        "em": ["two"],
        "strong": ["three"],
        "p code": ["4*5*6"],
        "ul ul li": ["b"],
        "blockquote p": ["said"],
        "th": ["x", "y"],
        "td": ["1", "2"],
        "pre code": ["print(1)\n\nprint(2)"],
    }.items():
        assert content.locator(selector).all_inner_texts() == texts, selector
    expect(content).to_contain_text("snake_case_name 2 * 3 * 4")


def test_text_that_nests_without_end_is_shown(open_tab: OpenTab) -> None:
    page = open_tab().page
    for text in (
        "> " * 3000,
        "*_" * 5000,
        "[" * 9000,
        "`" * 9000 + "a",
        "- " * 3000,
        "**a " * 4000,
        "|-" * 2000 + "\n|-",
    ):
        shown = page.evaluate(
            "async (text) => { const { render } = await import('/pages/markdown.js');"
            " const box = document.createElement('div'); render(box, text); return box.children.length; }",
            text,
        )
        assert shown >= 1


def test_dark_and_light_follow_the_system(open_tab: OpenTab) -> None:
    colours = [
        open_tab(color_scheme=scheme).page.evaluate("getComputedStyle(document.body).backgroundColor")
        for scheme in ("light", "dark")
    ]
    assert colours == ["rgb(255, 255, 255)", "rgb(22, 24, 29)"]


def test_400_pixels_are_enough(open_tab: OpenTab, triton: FakeTriton, writes: Writes) -> None:
    triton.script = [
        writes("A" * 200 + "\n\n```\n" + "code " * 60 + "\n```\n\n|" + " wide |" * 30 + "\n|" + "---|" * 30)
    ]
    page = open_tab(viewport=NARROW).page
    ask(page, "What is a house?")
    answers(page)
    assert page.evaluate("document.documentElement.scrollWidth") == 400
    assert page.locator("main").evaluate("main => main.scrollWidth") <= 400
    expect(page.get_by_role("button", name="New chat")).to_be_hidden()
    button(page, "Chats")
    button(page, "New chat")
    assert answers(page) == []


def test_everything_can_be_reached_by_keyboard_and_has_a_name(open_tab: OpenTab) -> None:
    page = open_tab().page
    expect(page.get_by_label("Message", exact=True)).to_be_focused()
    button(page, "Settings")
    unnamed = page.locator("button, input, select, textarea").evaluate_all(
        "all => all.filter(one => !(one.textContent.trim() || one.ariaLabel || one.labels?.length)).length"
    )
    assert unnamed == 0
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.keyboard.press("Shift+Tab")
    assert page.evaluate("document.activeElement.tagName") == "BUTTON"
