"""A bound on the bytes of all request bodies that are being read, so that slow clients cannot fill the memory."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from frontend.errors import TooManyBodies

MIN_BODY_MEMORY_BYTES = 64 * 1024 * 1024
"""What all bodies together may hold, unless `max_body_bytes` asks for more."""

_BODIES_THAT_FIT = 4
"""A caller that is alone may hold half of the memory. So two bodies of the largest size fit in any case."""


class BodyMemory:
    """Counts the bytes of unfinished bodies by caller. For one event loop.

    A caller may hold at most as many bytes as stay free: half of the memory, and the next one half of what is left. So
    there is always room for another caller. (Choudhury and Hahne, Dynamic queue length thresholds, 1998.)
    """

    def __init__(self, max_body_bytes: int) -> None:
        self._num_free = max(MIN_BODY_MEMORY_BYTES, _BODIES_THAT_FIT * max_body_bytes)
        self._held: Counter[str] = Counter()

    @contextmanager
    def body(self, caller: str) -> Iterator[Callable[[int], None]]:
        """Yields a function that counts bytes of one body, before they are kept; leaving the block gives them back.

        The function raises TooManyBodies if the caller may not hold that many more.
        """
        num_held = 0

        def grow(num_bytes: int) -> None:
            nonlocal num_held
            if self._held[caller] + num_bytes > self._num_free - num_bytes:
                raise TooManyBodies("The server is busy reading other request bodies of yours. Please retry shortly.")
            num_held += num_bytes
            self._held[caller] += num_bytes
            self._num_free -= num_bytes

        try:
            yield grow
        finally:
            self._num_free += num_held
            self._held[caller] -= num_held
            if not self._held[caller]:
                del self._held[caller]
