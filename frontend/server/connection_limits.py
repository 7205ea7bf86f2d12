"""The limits of one HTTP connection: bytes, numbers and times."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """What a client may send before its request is handed to a route, and how long it may take to read.

    `max_header_bytes` is of all headers of a request together, names and values. While `max_pipelined` requests or more
    wait for the answer to an earlier one, no further ones are parsed or read.
    `header_timeout_s` counts from the first byte of a request, or from when the connection was opened,
    `body_timeout_s` from the end of the headers,
    `linger_s` from when the last answer was written to a client that still sends, of which it may send
    `max_discarded_bytes`; `write_timeout_s` from when 64 KiB of an answer wait for the client, or from when the
    connection is to be closed.
    """

    max_url_bytes: int = 8 * 1024
    max_header_bytes: int = 32 * 1024
    max_headers: int = 100
    max_pipelined: int = 16
    header_timeout_s: float = 10.0
    body_timeout_s: float = 60.0
    write_timeout_s: float = 60.0
    linger_s: float = 2.0
    max_discarded_bytes: int = 32 * 1024 * 1024
