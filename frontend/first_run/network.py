"""Whether the package index answers. pip and uv say so only after many retries."""

import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping

from .pip_settings import pip_options

_TIMEOUT_S = 10.0


def problems(environment: Mapping[str, str]) -> Iterator[str]:
    """To be asked if packages are to be installed."""
    options = pip_options(environment)
    url = options["index-url"].rstrip("/")
    if options.get("no-index", "").lower() in ("1", "true", "yes", "on"):
        return
    if reason := unreachable(url, options.get("proxy")):
        yield (
            f"network: the package index {url} does not answer ({reason}), and packages are still to be installed."
            " Connect this machine, or name an index or a proxy: PIP_INDEX_URL=https://... or PIP_PROXY=http://..."
        )


def unreachable(url: str, proxy: str | None = None, timeout_s: float = _TIMEOUT_S) -> str | None:
    """Why nothing answers there. Every HTTP answer counts as one, and so does a certificate that is not trusted here.

    In a thread, because looking up a name takes as long as the system likes. Without a proxy, that of the environment.
    """
    if not url.startswith(("https://", "http://")):
        return None
    found: list[str | None] = [f"not within {timeout_s:g} s"]

    def ask() -> None:
        found[:] = [_failure(url, proxy, timeout_s)]

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(timeout_s)
    return found[0]


def _failure(url: str, proxy: str | None, timeout_s: float) -> str | None:
    request = urllib.request.Request(f"{url}/pip/", method="HEAD")
    handlers = [urllib.request.ProxyHandler({"http": proxy, "https": proxy})] if proxy else []
    try:
        with urllib.request.build_opener(*handlers).open(request, timeout=timeout_s):
            return None
    except urllib.error.HTTPError as answer:
        answer.close()
        return None
    except urllib.error.URLError as error:
        return None if isinstance(error.reason, ssl.SSLError) else _text(error.reason)
    except (OSError, ValueError) as error:  # ValueError: not a URL
        return _text(error)


def _text(error: object) -> str:
    return str(getattr(error, "strerror", None) or error)
