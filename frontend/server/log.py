"""How the log is written: to stderr, as text or as one JSON object a line, each line with the id of its request."""

import logging
from contextvars import ContextVar

from pythonjsonlogger.orjson import OrjsonFormatter

REQUEST_ID: ContextVar[str] = ContextVar("REQUEST_ID", default="-")
"""The id of the request that the running task answers."""

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s [%(request_id)s] %(message)s"
"""For logging.Formatter; `request_id` is added by `log_handler`."""

_OURS = ("frontend", "uvicorn")


def set_up_logging(level: str, log_format: str) -> None:
    """`level` is a name of the logging module in lower case, `log_format` is text or json.

    The level is that of the frontend and of uvicorn. Other libraries stay at INFO at least: what they write at DEBUG
    may hold headers or bodies.
    """
    # As Python's logging HOWTO has it under "Optimization": no line says where it was written, which takes 12 us.
    logging._srcfile = None
    logging.logThreads = False
    logging.logProcesses = False
    logging.logMultiprocessing = False
    wanted = int(logging.getLevelName(level.upper()))
    logging.basicConfig(level=max(wanted, logging.INFO), handlers=[log_handler(log_format)])
    for name in _OURS:
        logging.getLogger(name).setLevel(wanted)


def log_handler(log_format: str = "text") -> logging.Handler:
    """To stderr, in LOG_FORMAT or as JSON."""
    handler = logging.StreamHandler()
    handler.setFormatter(_json_formatter() if log_format == "json" else logging.Formatter(LOG_FORMAT))
    handler.addFilter(_complete)
    return handler


def _json_formatter() -> logging.Formatter:
    """The fields of LOG_FORMAT, and those that a line gives as `extra`. `time` is UTC, in ISO 8601."""
    return OrjsonFormatter(
        ["levelname", "name", "request_id", "message"],
        rename_fields={"levelname": "level", "name": "logger"},
        timestamp="time",
    )


def _complete(record: logging.LogRecord) -> bool:
    record.request_id = REQUEST_ID.get()
    if record.name == "uvicorn.error":  # uvicorn's logger for everything but requests
        record.name = "uvicorn"
    return True
