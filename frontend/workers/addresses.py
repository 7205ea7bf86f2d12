"""The sockets of several workers for one address."""

import socket
from contextlib import ExitStack

from frontend.errors import StartupError


def bind(host: str, port: int, num_workers: int) -> list[list[socket.socket]]:
    """For each worker a bound socket for every address of the host. Raises StartupError if one cannot be bound."""
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        addresses = list(dict.fromkeys((family, address) for family, _, _, _, address in found))
        for family, address in addresses:
            with _bound(family, address):  # alone: another server with workers would share the port with these
                pass
        with ExitStack() as stack:
            sockets = [
                [stack.enter_context(_bound(family, address, shares=True)) for family, address in addresses]
                for _ in range(num_workers)
            ]
            stack.pop_all()
            return sockets
    except OSError as exc:
        raise StartupError(f"cannot listen on {host}:{port}: {exc.strerror or exc}") from exc


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
