"""Dockerfiles, the systemd unit and the Makefile, as far as they can be checked without a Docker daemon."""

import configparser
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.docker.project import DOCKER, ROOT, services, settings

DOCKERFILES = sorted(DOCKER.glob("*.Dockerfile"))
UNIT = DOCKER / "mixtral.service"


def instructions(dockerfile: Path) -> list[tuple[str, str]]:
    """Instruction and arguments; continued lines are joined, comments left out."""
    lines = [line for line in dockerfile.read_text().splitlines() if not line.lstrip().startswith("#")]
    text = "\n".join(lines).replace("\\\n", " ")
    return [(line.split()[0], line.partition(" ")[2].strip()) for line in text.splitlines() if line.strip()]


def test_every_image_that_compose_builds_has_a_dockerfile_and_no_other() -> None:
    built = {service["build"]["dockerfile"] for service in services().values() if "build" in service}
    assert built == {str(dockerfile.relative_to(ROOT)) for dockerfile in DOCKERFILES}


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_images_do_not_run_as_root(dockerfile: Path) -> None:
    users = [arguments for instruction, arguments in instructions(dockerfile) if instruction == "USER"]
    assert users
    assert users[-1] not in {"root", "0", "0:0"}


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_base_images_are_arguments_whose_defaults_are_those_of_the_env_file(dockerfile: Path) -> None:
    steps = instructions(dockerfile)
    arguments = dict(step.split("=", 1) for instruction, step in steps if instruction == "ARG")
    bases = {step.split()[0] for instruction, step in steps if instruction == "FROM"}
    assert bases == {f"${{{name}}}" for name in arguments}
    for name, image in arguments.items():
        assert image == settings()[name]
        assert re.search(r":\d[\w.]*-?[\w.-]+$", image), f"{image} names no version"


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_images_install_only_what_the_constraints_pin(dockerfile: Path) -> None:
    steps = instructions(dockerfile)
    assert "ADD" not in {instruction for instruction, _ in steps}
    runs = [arguments for instruction, arguments in steps if instruction == "RUN"]
    assert not [run for run in runs if re.search(r"\b(curl|wget|git|apt-get)\b", run)]
    installs = [command for run in runs for command in run.split("&&") if "pip install" in command]
    assert installs
    assert all("-c constraints.txt" in command for command in installs)


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_images_copy_exactly_what_their_ignore_file_allows(dockerfile: Path) -> None:
    lines = Path(f"{dockerfile}.dockerignore").read_text().splitlines()
    assert lines[0] == "*"
    allowed = {line[1:] for line in lines if line.startswith("!")}
    copied: set[str] = set()
    for instruction, arguments in instructions(dockerfile):
        if instruction == "COPY" and "--from" not in arguments:
            copied.update(word for word in arguments.split()[:-1] if not word.startswith("--"))
    assert copied == allowed
    assert all((ROOT / path).exists() for path in copied)


def test_every_package_is_installed_into_the_images() -> None:
    """An editable installation would not notice that one is missing."""
    assert 'include = ["build_engine*", "frontend*", "model_repository"]' in (ROOT / "pyproject.toml").read_text()
    folders = {file.parent for name in ("build_engine", "frontend") for file in (ROOT / name).rglob("*.py")}
    assert not [folder for folder in folders if not (folder / "__init__.py").exists()]


def test_the_frontend_image_installs_xgrammar_without_its_dependencies() -> None:
    dockerfile = (ROOT / "docker" / "frontend.Dockerfile").read_text()
    assert re.search(r"pip install .*--no-deps xgrammar$", dockerfile, re.MULTILINE)


def read_unit() -> configparser.ConfigParser:
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(UNIT)
    return unit


def test_the_unit_starts_and_stops_the_compose_project() -> None:
    unit = read_unit()
    assert unit["Unit"]["Requires"] == "docker.service"
    assert unit["Service"]["WorkingDirectory"] + "/compose.yaml" == unit["Unit"]["AssertPathExists"]
    assert unit["Service"]["ExecStart"] == "/usr/bin/docker compose up --detach --wait --no-build"
    assert unit["Service"]["ExecStop"] == "/usr/bin/docker compose down"
    assert (unit["Service"]["Type"], unit["Service"]["RemainAfterExit"]) == ("oneshot", "yes")
    start_period = services()["triton"]["healthcheck"]["start_period"]
    minutes = int(unit["Service"]["TimeoutStartSec"].removesuffix("min"))
    assert 60 * minutes > int(start_period.removesuffix("s"))


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    """With `true` in place of docker, which need not be installed. Without systemd, only the keys are checked."""
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        known = {"Description", "Requires", "After", "Wants", "AssertPathExists", "Type", "RemainAfterExit", "WantedBy",
                 "WorkingDirectory", "ExecStart", "ExecStop", "TimeoutStartSec", "TimeoutStopSec"}  # fmt: skip
        assert {key for section in read_unit().values() for key in section} == known
        return
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/usr/bin/docker", shutil.which("true") or "/bin/true"))
    (tmp_path / "docker.service").write_text("[Service]\nExecStart=/bin/true\n")
    environment = {**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"}
    checked = subprocess.run([analyze, "verify", unit], env=environment, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


def make(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["make", "--no-print-directory", "--dry-run", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    "target",
    [
        "engine",
        "check-engine",
        "rollback",
        "doctor",
        "plan",
        "limits",
        "images",
        "up",
        "down",
        "logs",
        "perf",
        "aiperf",
    ],
)
def test_make_knows_and_lists_its_targets(target: str) -> None:
    assert make(target).returncode == 0
    assert re.search(rf"^{target}:.*## \w", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The Makefile and the compose project alone."""
    shutil.copytree(DOCKER, tmp_path / "docker")
    shutil.copy(ROOT / "Makefile", tmp_path)
    return tmp_path


OVERRIDE_NAMES = [f"{stem}.override.{end}" for stem in ("compose", "docker-compose") for end in ("yml", "yaml")]
"""In the order in which docker compose looks for them. Source: DefaultOverrideFileNames of compose-go."""


@pytest.mark.parametrize("target", ["up", "down", "logs", "images", "perf"])
@pytest.mark.parametrize(
    ("present", "taken"), [([], []), *((OVERRIDE_NAMES[i:], OVERRIDE_NAMES[i : i + 1]) for i in range(4))]
)
def test_make_reads_the_override_file_that_docker_compose_would(
    checkout: Path, target: str, present: list[str], taken: list[str]
) -> None:
    for name in present:
        (checkout / "docker" / name).write_text("services: {}\n")
    files = "".join(f" -f docker/{name}" for name in taken)
    printed = subprocess.run(["make", "-n", target], cwd=checkout, capture_output=True, text=True, check=True).stdout
    assert f"docker compose -f docker/compose.yaml{files} --" in printed or (
        f"docker compose -f docker/compose.yaml{files} -f" in printed and target == "perf"
    )


@pytest.mark.parametrize(
    ("profiles", "model"), [("cpu", "openvino"), ("gpu,metrics", "tensorrt_llm"), ("", "tensorrt_llm")]
)
def test_make_starts_the_profiles_of_the_env_file_as_the_unit_does(checkout: Path, profiles: str, model: str) -> None:
    file = checkout / "docker" / ".env"
    file.write_text(file.read_text().replace("COMPOSE_PROFILES=gpu", f"COMPOSE_PROFILES={profiles}"))
    printed = subprocess.run(["make", "-n", "up"], cwd=checkout, capture_output=True, text=True, check=True).stdout
    assert f"model_repository/{model}/1/engine" in printed
    assert " ".join(f"--profile {name}" for name in (profiles or "gpu").split(",")) + " up" in printed


NEED_COMPOSE = ["images", "doctor", "engine", "check-engine", "rollback", "up", "down", "logs"]


@pytest.mark.parametrize("target", NEED_COMPOSE)
@pytest.mark.parametrize(
    ("has_docker", "line"),
    [
        (True, "docker has no Compose plugin; install the package docker-compose-plugin (docker-compose-v2 on Ubuntu)"),
        (
            False,
            "docker is not installed; docs/gpu-host.md says what the containers need, and make run serves without it",
        ),
    ],
)
def test_make_says_in_one_line_that_compose_is_missing(
    checkout: Path, target: str, has_docker: bool, line: str
) -> None:
    programs = checkout / "programs"
    programs.mkdir()
    for program in ("make", "sh", "sed", "stat"):
        (programs / program).symlink_to(shutil.which(program) or "")
    if has_docker:
        (programs / "docker").write_text("#!/bin/sh\necho \"docker: 'compose' is not a docker command.\" >&2\nexit 1\n")
        (programs / "docker").chmod(0o755)
    refused = subprocess.run(
        ["make", target], cwd=checkout, env={"PATH": str(programs)}, capture_output=True, text=True, check=False
    )
    assert (refused.returncode, refused.stdout) == (2, f"{line}\n")


@pytest.mark.parametrize(("target", "command"), [("engine", "build --target tensorrt_llm"), ("doctor", "doctor")])
def test_make_runs_the_build_in_the_image_with_the_checkpoint(target: str, command: str) -> None:
    output = make(target, "CHECKPOINT=/opt/models/casperhansen/mixtral-instruct-awq").stdout
    user = '--user "$(stat -c %u:%g model_repository)"'
    compose = f"docker/with-checkpoint.sh docker compose -f docker/compose.yaml run --rm {user}"
    assert output.endswith(f"{compose} -- engine {command}\n")


def test_make_rollback_runs_where_the_engine_of_the_profile_was_built() -> None:
    assert "engine rollback --target tensorrt_llm; fi" in make("rollback").stdout
    assert ".venv/bin/python -m build_engine rollback --target openvino" in make("rollback", "PROFILE=cpu").stdout


def test_make_engine_builds_on_the_gpus_that_the_caller_names() -> None:
    """With the numbers of nvidia-smi, by which the preflight looks for them."""
    named = make("engine", "CHECKPOINT=/opt/models/mixtral", "CUDA_VISIBLE_DEVICES=1").stdout
    assert "run --rm --env CUDA_VISIBLE_DEVICES --env CUDA_DEVICE_ORDER=PCI_BUS_ID --user" in named


def test_make_perf_names_the_gpu_of_a_gpu_engine_only() -> None:
    assert "--gpu l40s -- docker compose" in " ".join(make("perf", "GPU=l40s").stdout.replace("\\\n", " ").split())
    assert "--gpu" not in make("perf", "PROFILE=cpu", "GPU=l40s").stdout


def test_make_limits_writes_those_for_its_gpus() -> None:
    output = make("limits", "CHECKPOINT=/opt/models/m", "GPU=l40s", "GPUS=2", "LIMITS=throughput").stdout
    assert 'build_engine limits --gpu l40s --gpus 2 --profile throughput "$CHECKPOINT"' in output


def test_make_engine_refuses_a_path_without_a_checkpoint(tmp_path: Path) -> None:
    refused = subprocess.run(
        ["make", "engine", f"CHECKPOINT={tmp_path}/none"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert refused.returncode != 0
    assert f"{tmp_path}/none is no checkpoint; name one: CHECKPOINT=DIR" in refused.stdout


@pytest.mark.parametrize(
    ("profile", "model"), [("gpu", "tensorrt_llm"), ("cpu", "openvino"), ("cpu,metrics", "openvino")]
)
def test_make_up_requires_the_engine_of_its_profile(profile: str, model: str) -> None:
    output = make("up", f"PROFILE={profile}").stdout
    assert f"model_repository/{model}/1/engine/manifest.json" in output
    assert " ".join(f"--profile {name}" for name in profile.split(",")) + " up --detach --wait" in output
