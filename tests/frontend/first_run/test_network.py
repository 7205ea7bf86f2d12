"""Whether the package index answers."""

import http.server
import socket
import threading
from collections.abc import Iterator

import pytest

from frontend.first_run import network


@pytest.fixture
def index() -> Iterator[str]:
    """An index that knows no package: it answers 404."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/simple"
    server.shutdown()
    server.server_close()
    thread.join()


def test_an_index_that_answers_whatever_it_says_is_in_reach(index: str) -> None:
    assert network.unreachable(index) is None


def test_a_refused_connection_is_named(index: str) -> None:
    assert network.unreachable("http://127.0.0.1:1/simple") == "Connection refused"


def test_a_name_that_is_not_known_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert network.unreachable("https://index.example/simple") == "Temporary failure in name resolution"


def test_an_index_that_is_silent_is_not_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/simple"
        assert network.unreachable(url, timeout_s=0.3) in ("not within 0.3 s", "timed out")


def test_a_proxy_is_asked_in_its_place(index: str) -> None:
    proxy = index.removesuffix("/simple")
    assert network.unreachable("http://index.example/simple", proxy) is None
    assert network.unreachable(index, "http://127.0.0.1:1") == "Connection refused"


def test_a_directory_as_index_is_left_to_pip() -> None:
    assert network.unreachable("file:///srv/packages") is None


def test_the_message_names_the_index_the_reason_and_the_remedy(environment: dict[str, str]) -> None:
    (problem,) = network.problems({**environment, "PIP_INDEX_URL": "http://127.0.0.1:1/simple/"})
    assert problem == (
        "network: the package index http://127.0.0.1:1/simple does not answer (Connection refused), and packages are"
        " still to be installed. Connect this machine, or name an index or a proxy: PIP_INDEX_URL=https://... or"
        " PIP_PROXY=http://..."
    )


def test_without_an_index_nothing_is_asked(environment: dict[str, str]) -> None:
    variables = {**environment, "PIP_NO_INDEX": "1", "PIP_INDEX_URL": "http://127.0.0.1:1"}
    assert list(network.problems(variables)) == []
