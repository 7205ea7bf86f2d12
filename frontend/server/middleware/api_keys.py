"""API keys: read at start, kept as SHA-256 digests, compared in constant time.

Keys are neither kept nor logged. A line of the file that is not understood stops the start, as skipping it could lock
a client out, or open the server to all.
"""

import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from frontend.errors import InvalidApiKey, StartupError
from frontend.server.secret_files import check_secret_file

_LINE = re.compile(r"sha256:(?P<digest>[0-9a-fA-F]{64})(?:\s+(?P<name>[!-~]{1,64}))?")
_BEARER = re.compile(rb"bearer +(?P<key>\S+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """One key. A key without a name is named by the beginning of its digest.

    Keys of one name are one caller, with one queue and one set of limits, so that a client can change its key.
    """

    digest: bytes
    name: str


def read_api_keys(file: Path | None, plain: Sequence[str]) -> tuple[ApiKey, ...]:
    """Keys of a file and plain ones together. Without any, requests need no key.

    A line of the file is `sha256:<64 hex digits>`, and behind it optionally a name of printable ASCII. Empty lines and
    lines that begin with # are skipped. Raises StartupError with the number of a bad line, never with its content.

        printf 'sha256:%s alice\\n' "$(printf %s "$KEY" | sha256sum | cut -d ' ' -f 1)" >> keys
    """
    keys = [_api_key(sha256(key.encode()).digest(), None) for key in plain]
    return (*(_read_file(file) if file is not None else ()), *keys)


def _read_file(path: Path) -> tuple[ApiKey, ...]:
    check_secret_file(path)
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise StartupError(f"cannot read {path}: {getattr(exc, 'strerror', None) or 'it is not UTF-8'}") from exc
    keys: dict[bytes, ApiKey] = {}
    for number, line in enumerate(lines, 1):
        if line.strip() and not line.startswith("#"):
            key = _read_line(line.strip(), f"{path}, line {number}")
            if key.digest in keys:
                raise StartupError(f"{path}, line {number}: this key is in the file already")
            keys[key.digest] = key
    if not keys:
        raise StartupError(f"{path} holds no API key; without a file everybody may call")
    return tuple(keys.values())


def _read_line(line: str, where: str) -> ApiKey:
    found = _LINE.fullmatch(line)
    if found is None:
        # Without the line itself: it may be a key that somebody forgot to hash.
        raise StartupError(f"{where} is not an API key; accepted: sha256:<64 hex digits>, and a name behind it")
    return _api_key(bytes.fromhex(found["digest"]), found["name"])


def _api_key(digest: bytes, name: str | None) -> ApiKey:
    return ApiKey(digest=digest, name=name or f"sha256:{digest.hex()[:8]}")


def authenticate(keys: Sequence[ApiKey], authorization: bytes | None, x_api_key: bytes | None = None) -> str:
    """The name of the key in an Authorization header, or without that in Anthropic's X-Api-Key.

    Compares all keys, so that the time taken reveals nothing. Raises InvalidApiKey.
    """
    if authorization is None and x_api_key is not None:
        return _name_of(keys, x_api_key)
    if authorization is None:
        raise InvalidApiKey("No API key was given. Send it as a header: Authorization: Bearer YOUR_KEY.")
    bearer = _BEARER.fullmatch(authorization)
    if bearer is None:
        raise InvalidApiKey("The Authorization header cannot be read; accepted: Authorization: Bearer YOUR_KEY.")
    return _name_of(keys, bearer["key"])


def _name_of(keys: Sequence[ApiKey], given: bytes) -> str:
    digest = sha256(given).digest()
    names = [key.name for key in keys if hmac.compare_digest(key.digest, digest)]
    if not names:
        raise InvalidApiKey("The API key is not known here.")
    return names[0]
