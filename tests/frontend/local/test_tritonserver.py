"""The command that starts Triton: from the PATH, else from the wheel; and one message for each missing part."""

import io
import os
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from frontend.local.tritonserver import TritonSettings, TritonUnavailable, start_triton, triton_command

NO_SUCH_PYTHON = (3, 99)
"""A version that no system has, so that only the tests provide its library."""

KEY = "of-this-start"
KEY_OPTION = f"--http-restricted-api=inference,metadata,model-config,statistics:triton-key={KEY}"

NO_TRITON = (
    "no tritonserver on the PATH, and no wheel that carries one is installed;"
    " install it with: pip install --no-deps nvidia-pytriton"
)


@pytest.fixture
def settings(tmp_path: Path) -> TritonSettings:
    return TritonSettings(
        model_repository=Path("models"), model="openvino", http_port=1, metrics_port=2, runtime_dir=tmp_path / "run"
    )


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that is the only one on the PATH."""
    directory = tmp_path / "path"
    directory.mkdir()
    monkeypatch.setenv("PATH", str(directory))
    return directory


@pytest.fixture
def python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Python 3.99; returns the directory of its shared library."""
    major, minor = NO_SUCH_PYTHON
    version = SimpleNamespace(major=major, minor=minor)
    found = SimpleNamespace(version_info=version, executable="/venv/bin/python", base_prefix=str(tmp_path / "moved"))
    monkeypatch.setattr("frontend.local.tritonserver.sys", found)
    monkeypatch.setattr("frontend.local.libpython.sys", found)
    monkeypatch.setattr(
        "frontend.local.libpython.sysconfig", SimpleNamespace(get_config_var=lambda _: str(tmp_path / "lib"))
    )
    touch(tmp_path / "lib" / "libpython3.99.so.1.0")
    return tmp_path / "lib"


@pytest.fixture
def wheel(path: Path, python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed wheel with Triton, its Python backend and a stub for Python 3.99; nothing on the PATH."""
    site_packages = tmp_path / "site-packages"
    touch(site_packages / "pytriton" / "__init__.py")
    triton = site_packages / "pytriton" / "tritonserver"
    touch(triton / "bin" / "tritonserver")
    touch(triton / "backends" / "python" / "libtriton_python.so")
    touch(triton / "python_backend_stubs" / "3.99" / "triton_python_backend_stub")
    monkeypatch.syspath_prepend(site_packages)
    return triton


def touch(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()


def test_tritonserver_on_the_path_is_used_with_its_own_backends(
    settings: TritonSettings, wheel: Path, path: Path
) -> None:
    touch(path / "tritonserver")
    (path / "tritonserver").chmod(0o755)
    (binary, *options), environment = triton_command(settings)
    assert binary == str(path / "tritonserver")
    assert not [option for option in options if option.startswith("--backend-directory")]
    assert environment == dict(os.environ)


def test_tritonserver_of_the_wheel_gets_stub_library_and_packages_of_this_python(
    settings: TritonSettings, wheel: Path, python: Path, path: Path
) -> None:
    (binary, *options), environment = triton_command(settings)
    backends = settings.runtime_dir / "backends"
    assert binary == str(wheel / "bin" / "tritonserver")
    assert f"--backend-directory={backends}" in options
    assert sorted(file.name for file in (backends / "python").iterdir()) == [
        "libtriton_python.so",
        "triton_python_backend_stub",
    ]
    assert environment["LD_LIBRARY_PATH"].split(":")[0] == str(python)
    assert environment["PATH"] == f"/venv/bin:{path}"


def test_the_library_is_found_beside_a_python_that_was_moved(
    settings: TritonSettings, wheel: Path, python: Path, tmp_path: Path
) -> None:
    (python / "libpython3.99.so.1.0").unlink()
    touch(tmp_path / "moved" / "lib" / "libpython3.99.so.1.0")
    assert triton_command(settings)[1]["LD_LIBRARY_PATH"].split(":")[0] == str(tmp_path / "moved" / "lib")


def test_triton_listens_on_loopback_only_and_its_admin_apis_are_closed(settings: TritonSettings, wheel: Path) -> None:
    (_, *options), _ = triton_command(settings)
    assert {"--http-address=127.0.0.1", "--metrics-address=127.0.0.1", "--allow-grpc=false"} <= set(options)
    assert "--http-restricted-api=model-repository,shared-memory,trace,logging:closed=\n" in options


def test_inference_needs_the_key_if_there_is_one(settings: TritonSettings, wheel: Path) -> None:
    (_, *without_key), _ = triton_command(settings)
    (_, *with_key), _ = triton_command(replace(settings, key=KEY))
    assert set(with_key) - set(without_key) == {KEY_OPTION}
    assert KEY not in repr(replace(settings, key=KEY))


def test_triton_gets_no_variable_of_the_frontend(
    settings: TritonSettings, wheel: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FRONTEND_API_KEYS", "secret")
    monkeypatch.setenv("FRONTEND_SSL_KEYFILE_PASSWORD", "secret")
    assert "secret" not in triton_command(settings)[1].values()
    touch(path / "tritonserver")
    (path / "tritonserver").chmod(0o755)
    assert "secret" not in triton_command(settings)[1].values()


def test_the_key_is_hidden_and_where_that_fails_it_is_said(
    settings: TritonSettings, wheel: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    secrets: list[str | None] = []

    def start(command: list[str], *, secret: str | None = None, **_: object) -> None:
        assert KEY_OPTION in command
        secrets.append(secret)
        if secret:
            raise PermissionError("ptrace is not allowed here")

    monkeypatch.setattr("frontend.local.tritonserver.start_child", start)
    start_triton(replace(settings, key=KEY), io.BytesIO())
    assert secrets == [KEY_OPTION, None]
    assert caplog.messages == [
        "local: every user of this machine can read Triton's key, as it cannot be hidden: ptrace is not allowed here"
    ]


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        pytest.param(
            "site-packages/pytriton/tritonserver/bin/tritonserver",
            NO_TRITON,
            id="tritonserver in the wheel",
        ),
        pytest.param(
            "site-packages/pytriton/tritonserver/python_backend_stubs/3.99/triton_python_backend_stub",
            "Triton's Python backend has no stub for Python 3.99; accepted: 3.11 and 3.12",
            id="stub",
        ),
        pytest.param(
            "lib/libpython3.99.so.1.0",
            "libpython3.99.so.1.0 is missing, which Triton's Python backend needs;"
            " install it with: apt-get install libpython3.99"
            " (a Python of pyenv has it if it was built with PYTHON_CONFIGURE_OPTS=--enable-shared)",
            id="libpython",
        ),
    ],
)
def test_a_missing_part_is_reported_in_one_sentence_with_what_to_install(
    settings: TritonSettings, wheel: Path, tmp_path: Path, missing: str, message: str
) -> None:
    (tmp_path / missing).unlink()
    with pytest.raises(TritonUnavailable) as error:
        triton_command(settings)
    assert str(error.value) == message


def test_without_the_wheel_the_message_says_what_to_install(
    settings: TritonSettings, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("frontend.local.tritonserver.importlib.util.find_spec", lambda _: None)
    with pytest.raises(TritonUnavailable) as error:
        triton_command(settings)
    assert str(error.value) == NO_TRITON


@pytest.mark.parametrize("name", ["a b", "$(id)", "a;b", "it's", "a&b", "~x"])
def test_a_path_that_tritons_shell_would_split_is_refused(settings: TritonSettings, name: str) -> None:
    path = Path("/srv", name)
    for option, changed in (
        ("--model-repository", replace(settings, model_repository=path)),
        ("--runtime-dir", replace(settings, runtime_dir=path)),
    ):
        with pytest.raises(TritonUnavailable, match=re.escape(f"{option} is {path}; accepted: a path without spaces")):
            start_triton(changed, io.BytesIO())
