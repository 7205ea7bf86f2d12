"""What HTTP requires of a request line and headers, where the parser does not: RFC 9110 and 9112. Pure."""

from collections.abc import Sequence

from frontend.errors import ExpectationFailed, InvalidRequest

_VERSIONS = ("1.1", "1.0")


def check_head(version: str, headers: Sequence[tuple[bytes, bytes]]) -> None:
    """Raises InvalidRequest or ExpectationFailed. `version` is as in HTTP/1.1, names of headers are in lower case."""
    if version not in _VERSIONS:
        raise InvalidRequest(f"The request is HTTP/{version}; 1.0 and 1.1 are accepted.")
    num_hosts = 0
    for name, value in headers:
        if name == b"host":
            num_hosts += 1
        elif name == b"expect" and value.lower() != b"100-continue":
            found = value.decode("latin-1")[:100]
            raise ExpectationFailed(f"Expect: {found} cannot be met; 100-continue is accepted.")
    if num_hosts == 0 and version == "1.1":
        raise InvalidRequest("The request has no Host header, which HTTP/1.1 requires.")
    if num_hosts > 1:
        raise InvalidRequest(f"The request has {num_hosts} Host headers; one is accepted.")
