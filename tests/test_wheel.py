"""The wheel alone builds and serves: installed into an environment of its own, run in an empty directory."""

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import httpx
import pytest

from build_engine.errors import RepositoryError
from build_engine.model_repository import create_default
from tests.e2e.conftest import Server, free_ports, wait_for, wait_until_serving

ROOT = Path(__file__).parents[1]
MODEL_REPOSITORY = ROOT / "model_repository"
SOURCES = sorted(
    file for pattern in ("*/config.pbtxt", "*/1/*.py", "*/1/README") for file in MODEL_REPOSITORY.glob(pattern)
)
SETUPTOOLS = 80
"""The oldest major version that pyproject.toml accepts."""


def has_setuptools() -> bool:
    """Whether this environment can build the wheel; otherwise pip gets setuptools into one of its own."""
    try:
        return int(version("setuptools").split(".")[0]) >= SETUPTOOLS
    except PackageNotFoundError:
        return False


def run(*command: str | Path, cwd: Path) -> str:
    """What the command prints. Python finds packages only where it is installed, not in a checkout."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ended = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the checkout, as building leaves files behind; an engine is published in it."""
    checkout = tmp_path_factory.mktemp("checkout") / "copy"
    shutil.copytree(
        ROOT, checkout, ignore=shutil.ignore_patterns(".*", "__pycache__", "engine", "engines", "build", "*.egg-info")
    )
    engine = checkout / "model_repository" / "openvino" / "1" / "engine"
    engine.mkdir()
    for name in ("manifest.json", "openvino_model.bin", "config.pbtxt", "module.py"):
        (engine / name).touch()
    directory = tmp_path_factory.mktemp("wheel")
    isolation = ["--no-build-isolation"] if has_setuptools() else []
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", *isolation, "--wheel-dir", directory, ".", cwd=checkout)
    (built,) = directory.glob("*.whl")
    return built


@dataclass(frozen=True)
class Installed:
    """A virtual environment with the wheel, and an empty directory to work in."""

    environment: Path
    cwd: Path

    def program(self, name: str) -> Path:
        return self.environment / "bin" / name

    def run(self, program: str, *arguments: str | Path) -> str:
        return run(self.program(program), *arguments, cwd=self.cwd)


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Dependencies come from the environment of the tests; .pth files there, as of this package, are not read."""
    environment = tmp_path_factory.mktemp("environment")
    venv.create(environment, symlinks=True, with_pip=True)
    made = Installed(environment, tmp_path_factory.mktemp("empty"))
    made.run("python", "-m", "pip", "install", "--no-deps", "--no-index", wheel)
    (site_packages,) = environment.glob("lib/python3*/site-packages")
    dependencies = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
    (site_packages / "dependencies.pth").write_text("".join(f"{directory}\n" for directory in dependencies))
    return made


def test_the_wheel_carries_the_sources_and_nothing_else(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    packages = [path for package in ("build_engine", "frontend") for path in (ROOT / package).rglob("*.py")]
    texts = [*(ROOT / "build_engine" / "demo").glob("*.txt"), *(ROOT / "frontend" / "pages").iterdir()]
    assert names == {str(path.relative_to(ROOT)) for path in (*packages, *texts, *SOURCES)}
    of_the_gpu = {"tensorrt_llm", "tensorrt_llm_log_probs", "tensorrt_llm_top_tokens"}
    assert {path.parts[-2] for path in SOURCES} == {"openvino", *of_the_gpu, "1"}
    versions = {path.parts[-3] for path in SOURCES if path.parts[-2] == "1"}
    assert versions == {"openvino", *of_the_gpu} - {"tensorrt_llm"}, "a model without a version is not loaded"


def test_packages_come_from_the_wheel(installed: Installed) -> None:
    printed = installed.run("python", "-c", "import build_engine, frontend; print(build_engine, frontend)")
    assert printed.count(f"from '{installed.environment}/lib/") == 2


@pytest.mark.parametrize(
    ("script", "module"),
    [
        ("mixtral-build-engine", "build_engine"),
        ("mixtral-local", "frontend.local"),
        ("mixtral-frontend", "frontend"),
    ],
)
def test_help_names_the_command_as_it_was_typed(installed: Installed, script: str, module: str) -> None:
    assert installed.run(script, "--help").startswith(f"usage: {script} [-h]")
    assert installed.run("python", "-m", module, "--help").startswith(f"usage: python -m {module} [-h]")


def contents(directory: Path) -> dict[str, bytes]:
    return {str(file.relative_to(directory)): file.read_bytes() for file in directory.rglob("*") if file.is_file()}


@pytest.fixture(scope="module")
def built(installed: Installed, tiny_checkpoint: Path) -> Installed:
    """After `mixtral-build-engine build` in the empty directory."""
    assert installed.run("mixtral-build-engine", "build", tiny_checkpoint).splitlines() == [
        "created model_repository; the limits of its engines are in each config.pbtxt",
        "published model_repository/openvino/1/engine",
    ]
    return installed


def test_a_build_creates_the_model_repository(built: Installed) -> None:
    repository = built.cwd / "model_repository"
    files = {name: content for name, content in contents(repository).items() if "/engines/" not in name}
    assert files == {str(path.relative_to(MODEL_REPOSITORY)): path.read_bytes() for path in SOURCES}
    assert (repository / "openvino" / "1" / "engine" / "manifest.json").exists()
    assert list(built.cwd.iterdir()) == [repository]


def test_a_second_build_keeps_what_the_operator_changed(built: Installed, tiny_checkpoint: Path) -> None:
    config = built.cwd / "model_repository" / "openvino" / "config.pbtxt"
    shipped = config.read_text()
    config.write_text(shipped + "# edited\n")
    before = contents(built.cwd)
    said = built.run("mixtral-build-engine", "build", tiny_checkpoint)
    assert said == "nothing changed: model_repository/openvino/1/engine is this checkpoint's engine already\n"
    assert contents(built.cwd) == before
    config.write_text(shipped)


def port_options(ports: Sequence[int]) -> list[str]:
    names = ("--port", "--triton-port", "--metrics-port")
    return [f"{name}={port}" for name, port in zip(names, ports, strict=True)]


@pytest.fixture
def server(built: Installed, tmp_path: Path) -> Iterator[Server]:
    """`mixtral-local` with its defaults, but for the ports."""
    ports, log = free_ports(3), tmp_path / "output.log"
    command = [str(built.program("mixtral-local")), *port_options(ports)]
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=built.cwd, stdout=output, stderr=subprocess.STDOUT)
    started = Server(process, log, *(f"http://127.0.0.1:{port}" for port in ports))
    try:
        wait_until_serving(started)
        yield started
    finally:
        process.kill()
        process.wait()


def test_the_wheel_serves_and_ends_with_status_0(server: Server, tiny_checkpoint: Path) -> None:
    body = {"messages": [{"role": "user", "content": "Hi"}], "model": str(tiny_checkpoint)}
    response = httpx.post(
        f"{server.api}/v1/chat/completions", json={**body, "max_tokens": 5, "ignore_eos": True}, timeout=30
    )
    assert response.status_code == 200
    answer = response.json()
    assert answer["choices"][0]["message"]["role"] == "assistant"
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 5
    wait_for(lambda: f"Serving {tiny_checkpoint}" in server.output(), "the banner")
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(30) == 0
    assert "created" not in server.output()


def test_serving_without_an_engine_creates_the_model_repository(installed: Installed, tmp_path: Path) -> None:
    command = [str(installed.program("mixtral-local")), *port_options(free_ports(3))]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    created, refused = ended.stdout.splitlines()
    assert created == "local: created model_repository; each config.pbtxt there is yours to edit"
    assert refused.startswith("local: model_repository/openvino/1/engine holds no engine; build it with:")
    assert contents(tmp_path).keys() == {f"model_repository/{path.relative_to(MODEL_REPOSITORY)}" for path in SOURCES}


def test_a_model_repository_that_exists_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("model_repository").mkdir()
    assert not create_default(Path("model_repository"))
    assert list(tmp_path.rglob("*")) == [tmp_path / "model_repository"]


def test_only_the_default_model_repository_is_created(tmp_path: Path) -> None:
    assert not create_default(tmp_path / "model_repository")
    assert list(tmp_path.iterdir()) == []


def test_a_model_repository_that_cannot_be_created_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("model_repository").symlink_to("nowhere")
    with pytest.raises(RepositoryError, match="model_repository: cannot be created") as raised:
        create_default(Path("model_repository"))
    assert str(raised.value).endswith("(Not a directory); accepted: a writable working directory")
    assert list(tmp_path.iterdir()) == [tmp_path / "model_repository"]
