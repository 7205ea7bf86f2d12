"""What every test looks for in the log is found where it is shown."""

import logging

import httpx
import pytest

from tests.log_privacy import Exchanged, as_text

CHAT = {"messages": [{"role": "user", "content": "Was ist ein Haus?"}], "model": "long enough to be a text"}
ANSWER = {"choices": [{"message": {"content": [{"type": "text", "text": "Ein Haus ist ein Gebäude."}]}}]}


@pytest.fixture
def exchanged() -> Exchanged:
    exchanged = Exchanged()
    request = httpx.Request("POST", "http://host/", json=CHAT, headers={"authorization": "Bearer sk-1234567"})
    exchanged.add_request(request)
    exchanged.add_response(httpx.Response(200, json=ANSWER, request=request))
    return exchanged


@pytest.mark.parametrize("shown", ["Was ist ein Haus?", "Ein Haus ist ein Gebäude.", "sk-1234567"])
def test_a_line_with_a_prompt_an_answer_or_a_key_is_found(exchanged: Exchanged, shown: str) -> None:
    for line in (f"refused: {shown!r}", f"{shown} and more"):
        assert exchanged.shown_in(line, since=0) == [shown]
    assert exchanged.shown_in(shown, since=len(exchanged)) == []


def test_a_line_with_other_fields_of_a_body_is_not(exchanged: Exchanged) -> None:
    assert exchanged.shown_in("for user: long enough to be a text", since=0) == []


def test_our_lines_count_with_the_fields_that_json_shows(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("frontend.server").info("line %d", 1, extra={"reason": "extra field"})
    logging.getLogger("httpx").info("of another library")
    assert "line 1" in as_text(caplog.records)
    assert "extra field" in as_text(caplog.records)
    assert "another library" not in as_text(caplog.records)
