"""The Triton container's entry point, run with stand-ins for the image's programs that record their arguments."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from frontend.local.tritonserver import ADMIN_APIS, UNSENDABLE_KEY, TritonSettings, triton_command
from tests.docker.project import ROOT, read_compose
from tests.doubles.mpirun import KILL_AFTER_S

SCRIPT = ROOT / "docker" / "triton-entrypoint.sh"
CONFIG = (ROOT / "model_repository" / "tensorrt_llm" / "config.pbtxt").read_text()
TP_1 = 'key: "tensor_parallel_size", value: { string_value: "1" }'
RECORD = """#!{python}
import json, os, signal, sys, time
with open({calls!r}, "a") as calls:
    calls.write(json.dumps([os.environ.get("OMPI_COMM_WORLD_RANK"), *sys.argv]) + "\\n")
"""
"""A stand-in that records its rank and arguments."""
SERVER = f"""
if os.environ.get("ANSWERING") and os.environ.get("OMPI_COMM_WORLD_RANK", "0") == "0":
    def finish(*_):
        time.sleep({2 * KILL_AFTER_S})
        os.write(1, b"the answer is complete\\n")  # not print, which may be interrupted by this very handler
        sys.exit(0)
    signal.signal(signal.SIGTERM, finish)
    os.write(1, b"rank 0 answers\\n")
    time.sleep(60)
if os.environ.get("ANSWERING"):
    time.sleep(60)
sys.exit(int(os.environ.get("SERVER_STATUS", "0")))
"""
"""The rest of the stand-in for tritonserver. With ANSWERING, rank 0 needs longer for its answer than mpirun waits."""
MPIRUN = f"""
if os.environ.get("MPIRUN_STARTS_NOTHING"):
    print("mpirun starts nothing", flush=True)
    time.sleep(60)
os.execv({sys.executable!r}, [{sys.executable!r}, {str(ROOT / "tests" / "doubles" / "mpirun.py")!r}, *sys.argv[1:]])
"""
"""The rest of the stand-in for mpirun: the one of the build step's tests."""
NVIDIA = """
os.execvp(sys.argv[1], sys.argv[1:])
"""
"""The rest of the stand-in for the entry point of NVIDIA's image, which runs the command that it is given."""


class Container:
    """A PATH with stand-ins for the image's programs, and a model repository."""

    def __init__(self, directory: Path) -> None:
        self.repository = directory / "models"
        self._calls = directory / "calls"
        self.bin = directory / "bin"
        self.bin.mkdir()
        for name, rest in (("tritonserver", SERVER), ("mpirun", MPIRUN), ("nvidia_entrypoint", NVIDIA)):
            program = self.bin / name
            program.write_text(RECORD.format(python=sys.executable, calls=str(self._calls)) + rest)
            program.chmod(0o755)
        self.install("tensorrt_llm", CONFIG)

    def install(self, model: str, config: str) -> None:
        engine = self.repository / model / "1" / "engine"
        engine.mkdir(parents=True, exist_ok=True)
        (engine / "manifest.json").write_text("{}")
        (engine.parents[1] / "config.pbtxt").write_text(config)

    def variables(self, **more: str) -> dict[str, str]:
        path = os.pathsep.join([str(self.bin), os.defpath])
        return {"PATH": path, "MODEL_REPOSITORY": str(self.repository), **more}

    def start(self, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
        variables = self.variables(**environment)
        return subprocess.run([SCRIPT, *options], env=variables, capture_output=True, text=True, check=False)

    def signal(self, number: signal.Signals, after: str, **environment: str) -> tuple[int, str]:
        """Send the script a signal when it has printed a line. Its exit status, and what it printed after that line."""
        variables = self.variables(**environment)
        with subprocess.Popen(
            [SCRIPT], env=variables, stdout=subprocess.PIPE, text=True, preexec_fn=receive_sigint
        ) as process:
            assert process.stdout
            assert after in iter(process.stdout.readline, "")
            process.send_signal(number)
            return process.wait(30), process.stdout.read()

    def calls(self) -> list[list[str | None]]:
        """Rank, program and arguments of each call, those without a rank first."""
        if not self._calls.exists():
            return []
        calls = [json.loads(line) for line in self._calls.read_text().splitlines()]
        calls.sort(key=lambda call: call[0] or "")
        return [[rank, Path(program).name, *arguments] for rank, program, *arguments in calls]

    def loading(self, model: str) -> list[str | None]:
        """The arguments of every rank."""
        return [
            f"--model-repository={self.repository}", "--model-control-mode=explicit", f"--load-model={model}",
            "--disable-auto-complete-config", "--allow-grpc=false", "--allow-sagemaker=false",
            "--allow-vertex-ai=false",
        ]  # fmt: skip

    def serving(self, model: str) -> list[str | None]:
        """The arguments of the rank that serves."""
        closed = "model-repository,shared-memory,trace,logging:closed=\n"
        return [
            *self.loading(model), "--http-address=0.0.0.0", "--http-port=8000", "--metrics-address=0.0.0.0",
            "--metrics-port=8002", "--exit-timeout-secs=30", f"--http-restricted-api={closed}",
            f"--grpc-restricted-protocol={closed}",
        ]  # fmt: skip


def receive_sigint() -> None:
    """As in a container. A shell ignores SIGINT for what it runs in the background, and a script cannot undo that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def container(tmp_path: Path) -> Container:
    return Container(tmp_path)


def test_one_gpu_is_one_server(container: Container) -> None:
    assert container.start().returncode == 0
    assert container.calls() == [[None, "tritonserver", *container.serving("tensorrt_llm")]]


def test_the_cpu_engine_is_served_by_the_same_script(container: Container) -> None:
    container.install("openvino", (ROOT / "model_repository" / "openvino" / "config.pbtxt").read_text())
    assert container.start(MODEL="openvino").returncode == 0
    assert container.calls() == [[None, "tritonserver", *container.serving("openvino")]]


def test_two_gpus_are_a_server_and_a_rank_that_opens_no_port(container: Container) -> None:
    container.install("tensorrt_llm", CONFIG.replace(TP_1, TP_1.replace('"1"', '"2"')))
    assert container.start().returncode == 0
    assert container.calls() == [
        [None, "mpirun", "--bind-to", "none", "-n", "2", str(SCRIPT)],
        ["0", "tritonserver", *container.serving("tensorrt_llm")],
        ["1", "tritonserver", *container.loading("tensorrt_llm"), "--allow-http=false", "--allow-metrics=false"],
    ]


def test_options_reach_the_server_last_and_no_other_rank(container: Container) -> None:
    container.install("tensorrt_llm", CONFIG.replace(TP_1, TP_1.replace('"1"', '"2"')))
    assert container.start("--allow-grpc=true", "--log-info=false").returncode == 0
    mpirun, server, rank_1 = container.calls()
    assert mpirun[-2:] == server[-2:] == ["--allow-grpc=true", "--log-info=false"]
    assert "--log-info=false" not in rank_1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_answer_of_two_gpus_is_completed_although_mpirun_would_kill_its_ranks(
    container: Container, number: signal.Signals
) -> None:
    container.install("tensorrt_llm", CONFIG.replace(TP_1, TP_1.replace('"1"', '"2"')))
    assert container.signal(number, "rank 0 answers\n", ANSWERING="yes") == (0, "the answer is complete\n")


def test_an_answer_of_one_gpu_is_completed(container: Container) -> None:
    assert container.signal(signal.SIGTERM, "rank 0 answers\n", ANSWERING="yes") == (0, "the answer is complete\n")


def test_the_stand_in_for_mpirun_kills_its_ranks_as_open_mpi_does(container: Container) -> None:
    command = [str(container.bin / "mpirun"), "--bind-to", "none", "-n", "2", str(container.bin / "tritonserver")]
    with subprocess.Popen(
        command, env=container.variables(ANSWERING="yes"), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "rank 0 answers\n"
        process.terminate()
        assert (process.wait(30), process.stdout.read()) == (1, "")


def test_a_signal_before_any_rank_has_started_ends_mpirun(container: Container) -> None:
    container.install("tensorrt_llm", CONFIG.replace(TP_1, TP_1.replace('"1"', '"2"')))
    status, printed = container.signal(signal.SIGTERM, "mpirun starts nothing\n", MPIRUN_STARTS_NOTHING="yes")
    assert (status, printed) == (128 + signal.SIGTERM, "")


def test_the_status_of_a_server_that_fails_is_that_of_the_container(container: Container) -> None:
    assert container.start(SERVER_STATUS="3").returncode == 3
    container.install("tensorrt_llm", CONFIG.replace(TP_1, TP_1.replace('"1"', '"2"')))
    assert container.start(SERVER_STATUS="3").returncode == 3


def test_the_entry_point_of_nvidias_image_is_run_once_and_first(container: Container) -> None:
    container.install("tensorrt_llm", CONFIG.replace(TP_1, TP_1.replace('"1"', '"2"')))
    nvidia = str(container.bin / "nvidia_entrypoint")
    assert container.start("--log-info=false", NVIDIA_ENTRYPOINT=nvidia).returncode == 0
    first, *rest = container.calls()
    assert first == [None, "nvidia_entrypoint", str(SCRIPT), "--log-info=false"]
    assert [call[1] for call in rest] == ["mpirun", "tritonserver", "tritonserver"]


@pytest.mark.parametrize(
    ("entry", "size"),
    [
        (TP_1.replace('"1"', '"8"'), "8"),
        ('key: "tensor_parallel_size"\n  value: {\n    string_value: "4"\n  }', "4"),
        ('# key: "tensor_parallel_size", value: { string_value: "4" } }\n{ ' + TP_1.replace('"1"', '"2"'), "2"),
    ],
)
def test_tensor_parallel_size_is_read_in_any_layout_of_the_config(container: Container, entry: str, size: str) -> None:
    container.install("tensorrt_llm", CONFIG.replace(TP_1, entry))
    assert container.start().returncode == 0
    assert container.calls()[0][1:6] == ["mpirun", "--bind-to", "none", "-n", size]


@pytest.mark.parametrize("value", ['"0"', '"two"', '""', '"-1"', '"${tp}"'])
def test_an_invalid_tensor_parallel_size_is_refused(container: Container, value: str) -> None:
    container.install("tensorrt_llm", CONFIG.replace(TP_1, TP_1.replace('"1"', value)))
    refused = container.start()
    assert refused.returncode == 1
    assert "tensor_parallel_size is no positive number" in refused.stderr
    assert container.calls() == []


GATHERS = 'key: "gather_generation_logits", value: { string_value: "false" }'


@pytest.mark.parametrize("size", ["1", "2"])
def test_alternatives_are_computed_beside_an_engine_that_gathers_its_logits(container: Container, size: str) -> None:
    gathering = CONFIG.replace(GATHERS, GATHERS.replace("false", "true"))
    container.install("tensorrt_llm", gathering.replace(TP_1, TP_1.replace('"1"', f'"{size}"')))
    assert container.start().returncode == 0
    servers = {call[0]: call for call in container.calls() if call[1] == "tritonserver"}
    serving = [rank for rank, call in servers.items() if "--load-model=tensorrt_llm_log_probs" in call]
    assert serving == [None if size == "1" else "0"]
    assert all("--load-model=tensorrt_llm" in call for call in servers.values())


def test_no_more_than_the_engine_is_loaded_otherwise(container: Container) -> None:
    container.install("tensorrt_llm", CONFIG)
    assert container.start().returncode == 0
    assert not any("log_probs" in str(argument) for argument in container.calls()[0])


def test_a_gather_generation_logits_that_is_neither_is_refused(container: Container) -> None:
    container.install("tensorrt_llm", CONFIG.replace(GATHERS, GATHERS.replace("false", "yes")))
    refused = container.start()
    assert refused.returncode == 1
    assert 'gather_generation_logits is no "true" or "false"' in refused.stderr


def test_a_missing_engine_is_reported_in_one_line(container: Container) -> None:
    (container.repository / "tensorrt_llm" / "1" / "engine" / "manifest.json").unlink()
    refused = container.start()
    assert (refused.returncode, container.calls()) == (1, [])
    assert refused.stderr == (
        f"triton-entrypoint: {container.repository}/tensorrt_llm holds no engine; build it first\n"
    )


def test_an_unknown_model_is_reported_in_one_line(container: Container) -> None:
    refused = container.start(MODEL="other")
    assert (refused.returncode, container.calls()) == (1, [])
    assert refused.stderr == f"triton-entrypoint: {container.repository}/other/config.pbtxt cannot be read\n"


def test_the_same_admin_apis_are_closed_as_by_make_run(container: Container) -> None:
    assert f"--http-restricted-api={ADMIN_APIS}:{UNSENDABLE_KEY}" in container.serving("openvino")


@pytest.fixture(scope="module")
def triton_help(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The help text of the tritonserver in the test environment. That of 26.07 is newer and has all of its options."""
    settings = TritonSettings(
        model_repository=ROOT, model="none", http_port=0, metrics_port=0,
        runtime_dir=tmp_path_factory.mktemp("triton"),
    )  # fmt: skip
    (binary, *_), environment = triton_command(settings)
    shown = subprocess.run([binary, "--help"], env=environment, capture_output=True, text=True, check=False)
    return shown.stdout + shown.stderr


def test_every_option_is_one_of_tritonservers(container: Container, triton_help: str) -> None:
    container.install("tensorrt_llm", CONFIG.replace(TP_1, TP_1.replace('"1"', '"2"')))
    overlay = read_compose("compose.perf.yaml")["services"]["triton"]["command"]
    assert container.start(*overlay).returncode == 0
    known = {word for word in triton_help.split() if word.startswith("--")}
    used = {str(argument).partition("=")[0] for _, program, *rest in container.calls() for argument in rest
            if program == "tritonserver"}  # fmt: skip
    assert len(used) > 15
    assert used <= known


@pytest.mark.parametrize("script", sorted(SCRIPT.parent.glob("*.sh")), ids=lambda script: script.name)
def test_the_scripts_pass_shellcheck(script: Path) -> None:
    """With the optional checks, but for braces around variables (SC2250) and lost exit codes (SC2310, SC2312)."""
    shellcheck = Path(sys.executable).with_name("shellcheck")
    checked = subprocess.run(
        [shellcheck, "--enable=all", "--exclude=SC2250,SC2310,SC2312", script],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.stdout + checked.stderr == ""
