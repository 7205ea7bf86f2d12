"""Ports held for a process that listens later."""

import re
import socket

import pytest

from frontend.errors import StartupError
from frontend.local.ports import ReservedPort, check_free


def test_a_reserved_port_is_given_to_no_other_and_can_be_listened_on() -> None:
    reserved = ReservedPort(0, "--triton-port")
    with socket.create_server(("127.0.0.1", reserved.port)) as server:  # sets SO_REUSEADDR, as Triton does
        with socket.create_connection(("127.0.0.1", reserved.port)):
            server.accept()[0].close()
        with pytest.raises(StartupError):
            check_free("127.0.0.1", reserved.port, "--triton-port")
    others = [ReservedPort(0, "--triton-port") for _ in range(100)]
    assert reserved.port not in {other.port for other in others}
    for held in (*others, reserved):
        held.close()


def test_a_busy_port_is_named_with_the_option_that_chooses_another() -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        message = f"cannot listen on 127.0.0.1:{port} (Address already in use); choose another with --metrics-port"
        with pytest.raises(StartupError, match=re.escape(message)):
            ReservedPort(port, "--metrics-port")
