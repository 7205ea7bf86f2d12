"""What the daemon and the processes in a container say about its state."""

import json
import textwrap
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.rehearsal.checkout import PROJECT, Checkout

REACHED = "reached"
"""What `connect` answers for an open port; for others, the error."""


class Containers:
    """The running containers of the project, by the names of their services."""

    def __init__(self, checkout: Checkout) -> None:
        self._checkout = checkout

    def running(self) -> set[str]:
        label = "com.docker.compose.service"
        shown = self._checkout.docker("ps", "--filter", f"name={PROJECT}", "--format", f'{{{{.Label "{label}"}}}}')
        return set(shown.stdout.split())

    def inspect(self, service: str) -> dict[str, Any]:
        (state,) = json.loads(self._checkout.docker("inspect", self._name(service)).stdout)
        found: dict[str, Any] = state
        return found

    def health(self, service: str) -> str:
        return str(self.inspect(service)["State"]["Health"]["Status"])

    def address(self, service: str, network: str) -> str:
        networks = self.inspect(service)["NetworkSettings"]["Networks"]
        return str(networks[f"{PROJECT}_{network}"]["IPAddress"])

    def gateway(self, network: str) -> str:
        """The address of this machine in a network, or the one that is kept free for it."""
        return str(self._network(network)["IPAM"]["Config"][0]["Gateway"])

    def on_network(self, network: str) -> set[str]:
        """The services on a network; containers of others by their whole names."""
        names = {container["Name"] for container in self._network(network)["Containers"].values()}
        return {name.removeprefix(f"{PROJECT}-").removesuffix("-1") for name in names}

    def logs(self, service: str) -> str:
        shown = self._checkout.docker("logs", self._name(service))
        return shown.stdout + shown.stderr

    def python(self, service: str, program: str, check: bool = True) -> str:
        """Run a program beside the service's process, as its user, and return what it prints."""
        interpreter = "/opt/venv/bin/python" if service.startswith("frontend") else "python3"
        command = ["exec", self._name(service), interpreter, "-c", textwrap.dedent(program)]
        return self._checkout.docker(*command, check=check).stdout.strip()

    def connect(self, service: str, host: str, port: int) -> str:
        """Open a connection from a container: REACHED, or the error."""
        return self.python(
            service,
            f"""
            import socket
            try:
                socket.create_connection(({host!r}, {port}), timeout=3)
                print({REACHED!r})
            except OSError as error:
                print(error)
            """,
        )

    def kill(self, service: str, name: str) -> None:
        """Send SIGKILL to all processes of that name, as a crash would. (`docker kill` counts as a wanted stop.)"""
        self.python(
            service,
            f"""
            import os, pathlib
            for process in pathlib.Path("/proc").glob("[0-9]*"):
                if (process / "comm").read_text() == "{name}\\n" and process.name != str(os.getpid()):
                    os.kill(int(process.name), 9)
            """,
            check=False,  # it may end with the container
        )

    def stop(self, service: str) -> None:
        """Send SIGTERM, and SIGKILL after the service's grace period."""
        self._checkout.docker("stop", self._name(service))

    def _network(self, network: str) -> dict[str, Any]:
        (state,) = json.loads(self._checkout.docker("network", "inspect", f"{PROJECT}_{network}").stdout)
        found: dict[str, Any] = state
        return found

    def _name(self, service: str) -> str:
        return f"{PROJECT}-{service}-1"


def wait_for(condition: Callable[[], bool], what: str, timeout_s: float) -> float:
    """Poll until `condition` holds; the seconds that it took. The test fails after `timeout_s`."""
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started > timeout_s:
            pytest.fail(f"waited {timeout_s} s for {what}")
        time.sleep(0.2)
    return time.monotonic() - started
