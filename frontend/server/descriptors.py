"""The limit on open files: each connection is one. At the limit the event loop drops connections without a word."""

import logging
import resource

_log = logging.getLogger(__name__)

_RESERVE = 128
"""Descriptors for what is neither a client's connection nor one to Triton: listeners, the log, the grammar compiler."""


def raise_descriptor_limit() -> int:
    """Raise this process's soft limit to the hard one, which needs no privilege. Returns the limit; logs it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    _log.info("this process may have %d open files; %d before", hard, soft)
    return hard


def connections_that_fit(max_connections: int, max_descriptors: int, num_generations: int) -> int:
    """`max_connections`, or less where the limit on open files leaves room for fewer. Logs a warning then.

    A generation that runs is one more connection, to Triton.
    """
    fit = max(1, max_descriptors - num_generations - _RESERVE)
    if fit >= max_connections:
        return max_connections
    _log.warning(
        "at most %d connections, not %d: the hard limit on open files is %d (ulimit -Hn)",
        fit, max_connections, max_descriptors,
    )  # fmt: skip
    return fit
