"""What /health of the frontend says, and how long it has said that the engine is not ready."""

import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable

_INTERVAL_S = 1.0
_TIMEOUT_S = 5.0
"""Longer than the frontend waits for Triton."""

HUNG_AFTER_S = 15.0
"""How long /health may answer 503 before Triton counts as hung. On a busy machine it may be slow for some seconds."""


def _opener() -> urllib.request.OpenerDirector:
    """Made once: urllib's own reads all certificates of the system for each request, and asks proxies."""
    unverified = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    unverified.check_hostname = False  # the certificate is for clients; this is our own process on this machine
    unverified.verify_mode = ssl.CERT_NONE
    return urllib.request.build_opener(urllib.request.HTTPSHandler(context=unverified), urllib.request.ProxyHandler({}))


_open = _opener().open


def health_status(url: str) -> int:
    """The HTTP status of GET `url`, which is /health; 0 if there is no answer, or another one.

    /health has no body. A frontend that takes no more connections, or that ends, answers all paths with 503 and an
    error, and says nothing of Triton.
    """
    try:
        with _open(url, timeout=_TIMEOUT_S) as response:
            return int(response.status)
    except urllib.error.HTTPError as exc:
        with exc:
            return 0 if exc.read() else exc.code
    except OSError:
        return 0


class HealthWatch:
    """Asks for the status every second. All but 503 count as healthy: a slow frontend says nothing of Triton."""

    def __init__(self, ask: Callable[[], int], clock: Callable[[], float] = time.monotonic) -> None:
        self._ask = ask
        self._clock = clock
        self._healthy_at = self._asked_at = clock()

    def is_hung(self) -> bool:
        """Whether each answer since HUNG_AFTER_S has been 503."""
        now = self._clock()
        if now < self._asked_at + _INTERVAL_S:
            return False
        self._asked_at = now
        if self._ask() != 503:
            self._healthy_at = now
        return now - self._healthy_at >= HUNG_AFTER_S
