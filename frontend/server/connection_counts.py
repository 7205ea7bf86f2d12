"""How many connections are open, altogether and by address: a bound on both, before anything is read from one."""

import ipaddress
from collections import Counter
from collections.abc import Sequence

from frontend.errors import RateLimitExceeded, TooManyConnections
from frontend.settings import Network

_IPV6_PREFIX = 64
"""Bits of an IPv6 address that count. One customer of a provider has all addresses of a /64 (RFC 6177)."""


class ConnectionCounts:
    """Counts open connections, at most `max_connections`, and `max_per_address` of one address. For one event loop.

    The addresses of `proxies` may have any number, because many clients share them.
    """

    def __init__(self, max_connections: int, max_per_address: int, proxies: Sequence[Network] = ()) -> None:
        self._max_connections = max_connections
        self._max_per_address = max_per_address
        self._proxies = proxies
        self._counts: Counter[str] = Counter()
        self.num_open = 0

    def add(self, address: str) -> None:
        """Count one more. Raises TooManyConnections or RateLimitExceeded, and then it is not counted."""
        key = self._key(address)
        if self.num_open >= self._max_connections:
            raise TooManyConnections(f"{self.num_open} connections are open, the most allowed. Please retry shortly.")
        if key is not None and self._counts[key] >= self._max_per_address:
            raise RateLimitExceeded(f"{self._counts[key]} connections of your address are open, the most allowed.")
        self.num_open += 1
        if key is not None:
            self._counts[key] += 1

    def remove(self, address: str) -> None:
        """A connection that was counted is closed."""
        key = self._key(address)
        self.num_open -= 1
        if key is not None:
            self._counts[key] -= 1
            if not self._counts[key]:
                del self._counts[key]

    def _key(self, address: str) -> str | None:
        """What is counted for an address; None for a proxy, and for a Unix socket, which has no address."""
        try:
            ip = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return None
        if isinstance(ip, ipaddress.IPv6Address):
            ip = ip.ipv4_mapped or ip
        if any(ip in proxy for proxy in self._proxies):
            return None
        return str(ip if ip.version == 4 else ipaddress.ip_network((ip, _IPV6_PREFIX), strict=False))
