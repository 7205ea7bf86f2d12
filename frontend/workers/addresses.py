"""The sockets of several workers for one address."""

import socket
from collections.abc import Sequence
from contextlib import ExitStack

from frontend.errors import StartupError


class Addresses:
    """Every address of a host and a port, kept from other programs as long as this process runs."""

    def __init__(self, host: str, port: int) -> None:
        """Raises StartupError if an address is another program's."""
        try:
            found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            for family, _, _, _, address in found:
                with _bound(family, address):  # alone: another server with workers would share the port with these
                    pass
            self._kept = [_bound(family, address, shares=True) for family, _, _, _, address in found]
        except OSError as exc:
            raise StartupError(f"cannot listen on {host}:{port}: {exc.strerror or exc}") from exc

    def for_a_worker(self, stack: ExitStack) -> Sequence[socket.socket]:
        """A bound socket for each address, until `stack` closes it."""
        return [
            stack.enter_context(_bound(kept.family, kept.getsockname(), shares=True)) for kept in self._kept
        ]  # fmt: skip


def _bound(
    family: int, address: tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes], *, shares: bool = False
) -> socket.socket:
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, shares)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return bound
