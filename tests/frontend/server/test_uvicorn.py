"""uvicorn with the frontend's settings: HTTPS with a certificate made for the test, and addresses behind a proxy."""

import asyncio
import logging
import shutil
import ssl
import subprocess
from pathlib import Path

import httpx
import pytest
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from frontend.errors import StartupError
from frontend.server.connection import connection_factory
from frontend.server.connection_counts import ConnectionCounts
from frontend.server.connection_limits import ConnectionLimits
from frontend.server.drain import Drain
from frontend.server.uvicorn import Server, tls_context, uvicorn_config
from frontend.settings import Settings

SERVED = PlainTextResponse("served")


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """cert.pem for 127.0.0.1, key.pem, the same key as locked.pem with a password, both in one as both.pem."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificate")
    directory = tmp_path_factory.mktemp("tls")
    for command in (
        "req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 1 -subj /CN=test"
        " -addext subjectAltName=IP:127.0.0.1",
        "rsa -aes128 -in key.pem -out locked.pem -passout pass:sesame",
    ):
        subprocess.run(["openssl", *command.split()], cwd=directory, check=True, capture_output=True)
    (directory / "both.pem").write_text((directory / "key.pem").read_text() + (directory / "cert.pem").read_text())
    return directory


def read(*argv: object, password: str = "") -> Settings:
    options = ["--engine-dir", "/engine", "--port", "0", *map(str, argv)]
    return Settings.from_args(options, {"FRONTEND_SSL_KEYFILE_PASSWORD": password})


async def get(settings: Settings, scheme: str, verify: ssl.SSLContext | bool, app: ASGIApp = SERVED) -> str:
    connection = connection_factory(ConnectionLimits(), ConnectionCounts(10, 10))
    server = Server(uvicorn_config(app, settings, tls_context(settings), connection), Drain(), 1)
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    host, port = server.servers[0].sockets[0].getsockname()
    try:
        async with httpx.AsyncClient(verify=verify, headers={"x-forwarded-for": "192.0.2.7"}) as client:
            return (await client.get(f"{scheme}://{host}:{port}")).text
    finally:
        server.should_exit = True
        await serving


@pytest.mark.parametrize(("key", "password"), [("key.pem", ""), ("locked.pem", "sesame")])
def test_serves_https_to_a_client_that_trusts_the_certificate(pem: Path, key: str, password: str) -> None:
    settings = read("--ssl-certfile", pem / "cert.pem", "--ssl-keyfile", pem / key, password=password)
    trust = ssl.create_default_context(cafile=str(pem / "cert.pem"))
    assert asyncio.run(get(settings, "https", trust)) == "served"


def test_key_may_be_in_the_same_file(pem: Path) -> None:
    trust = ssl.create_default_context(cafile=str(pem / "cert.pem"))
    assert asyncio.run(get(read("--ssl-certfile", pem / "both.pem"), "https", trust)) == "served"


def test_plain_http_is_not_answered_on_the_https_port(pem: Path) -> None:
    settings = read("--ssl-certfile", pem / "both.pem")
    with pytest.raises(httpx.TransportError):
        asyncio.run(get(settings, "http", False))


def test_without_a_certificate_http_is_served() -> None:
    assert asyncio.run(get(read(), "http", False)) == "served"


@pytest.mark.parametrize(
    ("options", "address"),
    [
        ([], "127.0.0.1"),
        (["--forwarded-allow-ips", "10.0.0.1"], "127.0.0.1"),
        (["--forwarded-allow-ips", "127.0.0.1"], "192.0.2.7"),
        (["--forwarded-allow-ips", "10.0.0.1", "--forwarded-allow-ips", "127.0.0.0/8"], "192.0.2.7"),
    ],
)
def test_the_address_in_x_forwarded_for_counts_only_behind_a_proxy_that_the_operator_names(
    monkeypatch: pytest.MonkeyPatch, options: list[str], address: str
) -> None:
    async def show_address(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse(scope["client"][0])(scope, receive, send)

    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")  # uvicorn's own variable
    assert asyncio.run(get(read(*options), "http", False, show_address)) == address


@pytest.mark.parametrize(("mode", "refused", "warned"), [(0o600, 0, 0), (0o640, 0, 0), (0o644, 0, 1), (0o602, 1, 0)])
def test_a_private_key_that_all_may_write_is_refused_and_one_that_all_may_read_is_warned_of(
    pem: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int, refused: bool, warned: bool
) -> None:
    key = tmp_path / "key.pem"
    shutil.copy(pem / "key.pem", key)
    key.chmod(mode)
    settings = read("--ssl-certfile", pem / "cert.pem", "--ssl-keyfile", key)
    if refused:
        with pytest.raises(StartupError, match=r"every user of this host may write .*key\.pem \(mode 0602\)"):
            tls_context(settings)
    else:
        assert tls_context(settings) is not None
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * warned


@pytest.mark.parametrize(
    ("cert", "key", "password"),
    [
        ("none.pem", "key.pem", ""),
        ("cert.pem", "none.pem", ""),
        ("key.pem", "key.pem", ""),
        ("cert.pem", "locked.pem", ""),
        ("cert.pem", "locked.pem", "wrong"),
    ],
)
def test_unusable_certificate_files_are_refused_without_asking_the_terminal(
    pem: Path, cert: str, key: str, password: str
) -> None:
    settings = read("--ssl-certfile", pem / cert, "--ssl-keyfile", pem / key, password=password)
    with pytest.raises(StartupError, match=r"^cannot serve HTTPS with .*\.pem") as caught:
        tls_context(settings)
    assert "wrong" not in str(caught.value)
