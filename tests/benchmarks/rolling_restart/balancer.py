"""HAProxy with docker/haproxy.cfg in front of replicas on loopback, and what its statistics say."""

import csv
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

CONFIG = Path(__file__).parents[3] / "docker" / "haproxy.cfg"
BACKEND = "replicas"
_NEEDS_ROOT = ("user ", "group ", "chroot ")
_START_TIMEOUT_S = 10.0


def haproxy() -> str | None:
    """The program, or None where it is not installed; Debian puts it where users do not look."""
    return shutil.which("haproxy", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")


@dataclass(frozen=True)
class Balancer:
    """A running HAProxy: `url` is the API's, `log` has a line for each request."""

    url: str
    log: Path
    process: "subprocess.Popen[bytes]"
    stats_socket: Path

    def states(self) -> dict[str, str]:
        """What the health checks say of each replica, such as `UP` or `DOWN`."""
        return {row["svname"]: row["status"] for row in self._rows() if row["svname"] != "BACKEND"}

    def sessions(self) -> dict[str, int]:
        """Requests that each replica has been given so far."""
        return {row["svname"]: int(row["stot"]) for row in self._rows() if row["svname"] != "BACKEND"}

    def num_retries(self) -> int:
        """How often a request was given to another replica so far, after the one that it was given to failed."""
        return sum(int(row["wredis"]) for row in self._rows() if row["svname"] == "BACKEND")

    def num_bytes(self) -> int:
        """Sent to clients so far: headers and bodies, with the framing of chunks."""
        return sum(int(row["bout"]) for row in self._rows() if row["svname"] == "BACKEND")

    def cpu_s(self) -> float:
        """CPU time of the process so far, in seconds."""
        spent = psutil.Process(self.process.pid).cpu_times()
        return float(spent.user + spent.system)

    def _rows(self) -> list[Mapping[str, str]]:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self.stats_socket))
            connection.sendall(f"show stat {BACKEND} -1 -1\n".encode())
            text = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
        return list(csv.DictReader(text.removeprefix("# ").splitlines()))


@contextmanager
def balancing(directory: Path, port: int, replicas: Sequence[str]) -> Iterator[Balancer]:
    """HAProxy on 127.0.0.1:`port` in front of two replicas, each `HOST:PORT`. `directory` gets its files."""
    program = haproxy()
    assert program is not None, "haproxy is not installed"
    config, stats_socket, log = directory / "haproxy.cfg", directory / "haproxy.sock", directory / "haproxy.log"
    config.write_text(_usable_here(CONFIG.read_text()))
    names = {f"REPLICA{number}": address for number, address in enumerate(replicas, 1)}
    environment = {**os.environ, "LISTEN": f"127.0.0.1:{port}", "STATS_SOCKET": str(stats_socket), **names}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [program, "-db", "-f", config], env=environment, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        _await_listening(port, process, log)
        yield Balancer(f"http://127.0.0.1:{port}", log, process, stats_socket)
    finally:
        process.kill()  # SIGTERM would wait for idle clients
        process.wait()


def _usable_here(config: str) -> str:
    """Only root can give its rights away."""
    if os.geteuid() == 0:
        return config
    return "\n".join(line for line in config.splitlines() if not line.lstrip().startswith(_NEEDS_ROOT)) + "\n"


def _await_listening(port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    give_up = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < give_up and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    process.kill()
    raise RuntimeError(f"haproxy does not listen on port {port}:\n{log.read_text()}")
