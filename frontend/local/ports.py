"""TCP ports of this machine: whether one is free, and holding one for a process that will listen on it later."""

import errno
import socket
from contextlib import closing

from frontend.errors import StartupError

LOOPBACK = "127.0.0.1"


def check_free(host: str, port: int, option: str) -> None:
    """Raises StartupError if nothing can listen there now; it names the `option` for another port, or --host."""
    with closing(_bound(host, port, option)):
        pass


class ReservedPort:
    """A port on loopback, `port` or a free one for 0, held until this is closed. One process may listen on it.

    The socket is bound and does not listen. With SO_REUSEADDR on both, Linux lets another socket listen there
    (socket(7)), and does not give the port to a process that asks for any.
    """

    def __init__(self, port: int, option: str) -> None:
        self._socket = _bound(LOOPBACK, port, option)
        self.port: int = self._socket.getsockname()[1]

    def close(self) -> None:
        """Give the port back."""
        self._socket.close()


def _bound(host: str, port: int, option: str) -> socket.socket:
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except (OSError, OverflowError) as exc:  # OverflowError: not a port number
        bound.close()
        reason = getattr(exc, "strerror", None) or exc
        if isinstance(exc, socket.gaierror) or getattr(exc, "errno", None) == errno.EADDRNOTAVAIL:
            option = "--host"
        raise StartupError(f"cannot listen on {host}:{port} ({reason}); choose another with {option}") from exc
    return bound
