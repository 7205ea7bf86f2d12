"""The log's form: text or JSON, one object a line, and the level of our own loggers only."""

import io
import logging
from collections.abc import Iterator

import orjson
import pytest

from frontend.server.log import REQUEST_ID, log_handler, set_up_logging


@pytest.fixture
def restored() -> Iterator[None]:
    """Levels and handlers as they were."""
    loggers = [logging.getLogger(name) for name in ("", "frontend", "uvicorn")]
    before = [(logger.level, logger.handlers[:]) for logger in loggers]
    yield
    for logger, (level, handlers) in zip(loggers, before, strict=True):
        logger.setLevel(level)
        logger.handlers[:] = handlers


def written(log_format: str, name: str = "frontend.server.x") -> str:
    stream, handler, logger = io.StringIO(), log_handler(log_format), logging.getLogger(name)
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(stream)
    logger.addHandler(handler)
    token = REQUEST_ID.set("req_1")
    try:
        raise ValueError("boom")
    except ValueError:
        logger.exception("two\nlines", extra={"status": 500})
    finally:
        REQUEST_ID.reset(token)
        logger.removeHandler(handler)
    return stream.getvalue()


def test_json_is_one_object_a_line_with_a_traceback_in_it() -> None:
    [line] = written("json").splitlines()
    fields = orjson.loads(line)
    assert "ValueError: boom" in fields.pop("exc_info")
    assert fields.pop("time").endswith("+00:00")
    assert fields == {
        "level": "ERROR", "logger": "frontend.server.x", "request_id": "req_1", "message": "two\nlines", "status": 500,
    }  # fmt: skip


def test_text_names_level_logger_and_request() -> None:
    assert " ERROR frontend.server.x [req_1] two\nlines\nTraceback" in written("text")


def test_uvicorns_logger_for_all_but_requests_is_not_called_an_error() -> None:
    assert " ERROR uvicorn [req_1] two\nlines" in written("text", "uvicorn.error")


@pytest.mark.parametrize(("level", "ours", "others"), [("debug", "DEBUG", "INFO"), ("error", "ERROR", "ERROR")])
def test_debug_is_for_our_own_loggers_only(restored: None, level: str, ours: str, others: str) -> None:
    logging.getLogger().handlers.clear()
    set_up_logging(level, "text")
    found = [logging.getLogger(name).getEffectiveLevel() for name in ("frontend.server.x", "uvicorn.error", "aiohttp")]
    assert list(map(logging.getLevelName, found)) == [ours, ours, others]
