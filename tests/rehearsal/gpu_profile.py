"""PROFILE=gpu under a real Docker daemon: the README's lines, for one GPU and for two. Run by `make rehearsal`.

NVIDIA's image, its toolkit and the GPUs are stand-ins: images/nvidia.Dockerfile says of what they are made.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from build_engine.selfcheck.gpu_part import subjects
from build_engine.selfcheck.run import REPORT, WORK_DIR
from tests.rehearsal.api import Api
from tests.rehearsal.checkout import PROJECT, Checkout, say
from tests.rehearsal.containers import REACHED, Containers, wait_for

pytestmark = [pytest.mark.timeout(900)]
TRITON, FRONTEND = "triton", "frontend"
GRACE_S = 45
TRUE = ["--entrypoint", "true", f"{PROJECT}-nvidia"]
"""A container that ends at once."""
MEMLOCK = "memlock=-1"
"""As in compose.yaml."""
DIGESTS = "sha256: "
"""Lines of the self check's report about files of which it has no digest to compare with: they are `not known`."""
PASSED_BEFORE = "selfcheck: this image has passed on these GPUs before"
TP_1 = 'key: "tensor_parallel_size", value: { string_value: "1" }'


@pytest.fixture(scope="module", autouse=True)
def stand_in(checkout: Checkout, checkpoint: Path) -> None:
    """The image that stands for NVIDIA's, and the daemon's consent to reserve GPUs."""
    checkout.make("cpu-engine", f"CHECKPOINT={checkpoint}")
    checkout.make("images", "PROFILE=cpu")
    compose = ["docker", "compose", "-f", "tests/rehearsal/images/compose.yaml"]
    checkout.run("image in place of NVIDIA's", [*compose, "build", "nvidia"])
    refused = checkout.docker("run", "--rm", "--gpus", "all", *TRUE, check=False)
    if refused.returncode:
        pytest.skip(f"this daemon reserves no GPUs: {refused.stderr.strip()}")
    checkout.variables["TRITON_IMAGE"] = f"{PROJECT}-nvidia"
    if "operation not permitted" in checkout.docker("run", "--rm", "--ulimit", MEMLOCK, *TRUE, check=False).stderr:
        say("left out: memlock, which root may not raise on this machine")
        edit(checkout.directory / "docker" / "compose.yaml", "memlock: -1, ", "")


@pytest.fixture(scope="module", params=[1, 2], ids=["1 GPU", "2 GPUs"])
def gpus(request: pytest.FixtureRequest, stand_in: None, checkout: Checkout, checkpoint: Path) -> Iterator[int]:
    """The steps of the README and of docs/gpu-host.md, in their order."""
    count: int = request.param
    named = f"CHECKPOINT={checkpoint}"
    if count == 1:
        checkout.make("plan", named, "GPU=h100-80g")
        checkout.make("images")
        assert "no Docker here" not in checkout.make("selfcheck")
        assert "failure" not in checkout.make("doctor", named)
        assert PASSED_BEFORE in checkout.make("engine", named)
    else:
        config = checkout.directory / "model_repository" / "tensorrt_llm" / "config.pbtxt"
        edit(config, TP_1, TP_1.replace('"1"', f'"{count}"'))
        assert PASSED_BEFORE in checkout.make("down", "engine", named)
    checkout.make("up")
    yield count
    checkout.make("down")


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert text.count(old) == 1
    file.write_text(text.replace(old, new))


def test_the_self_check_passes(gpus: int, checkout: Checkout) -> None:
    """It checks one GPU and two in the same run, before the engine is built."""
    report = selfcheck_report(checkout)
    *lines, total = report.splitlines()
    say(f"self check: {total}")
    statuses = {line[11:].split("  ")[0]: line[:11].strip() for line in lines}
    assert {status for subject, status in statuses.items() if not subject.startswith(DIGESTS)} == {"passed"}, report
    assert {status for subject, status in statuses.items() if subject.startswith(DIGESTS)} == {"not known"}, report
    assert statuses.keys() >= {"options: mpirun", "tiny checkpoint", *subjects(gpus)}


def test_the_report_of_the_self_check_has_no_path(gpus: int, checkout: Checkout) -> None:
    report = selfcheck_report(checkout)
    assert str(checkout.directory) not in report
    assert not re.search(r"(?<![\w.>])/\w", report), report


def selfcheck_report(checkout: Checkout) -> str:
    return (checkout.directory / "model_repository/tensorrt_llm/1" / WORK_DIR / REPORT).read_text()


def test_the_request_of_the_readme_is_answered(gpus: int, api: Api) -> None:
    answer = api.chat(max_tokens=24)
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["message"]["content"]


def test_the_engine_has_a_file_for_each_gpu(gpus: int, checkout: Checkout) -> None:
    engine = checkout.directory / "model_repository" / "tensorrt_llm" / "1" / "engine"
    assert {file.name for file in engine.glob("rank*")} == {f"rank{rank}.engine" for rank in range(gpus)}


def test_another_build_finds_nothing_to_do(gpus: int, checkout: Checkout, checkpoint: Path) -> None:
    assert "nothing changed" in checkout.make("engine", f"CHECKPOINT={checkpoint}")


def test_containers_are_healthy_and_the_frontend_reaches_triton(gpus: int, containers: Containers) -> None:
    assert containers.running() == {TRITON, FRONTEND}
    assert {containers.health(service) for service in containers.running()} == {"healthy"}
    assert containers.connect(FRONTEND, "triton", 8000) == REACHED
    assert containers.connect(TRITON, containers.address(FRONTEND, "edge"), 8000) != REACHED


def test_gpus_are_reserved_and_nvidias_entry_point_is_run(gpus: int, containers: Containers) -> None:
    (reservation,) = containers.inspect(TRITON)["HostConfig"]["DeviceRequests"]
    assert (reservation["Driver"], reservation["Count"], reservation["Capabilities"]) == ("nvidia", -1, [["gpu"]])
    assert containers.logs(TRITON).count("stand-in for NVIDIA's entry point, GPUs: all") == 1


def test_shared_memory_is_large_enough_for_nccl(gpus: int, containers: Containers) -> None:
    assert containers.python(TRITON, "import shutil; print(shutil.disk_usage('/dev/shm').total >> 30)") == "4"


def test_each_gpu_has_a_process_of_which_one_serves(gpus: int, containers: Containers) -> None:
    """Debian's Open MPI starts them, as user 1000 and on a read-only file system."""
    serving = containers.python(
        TRITON,
        """
        import pathlib
        for process in pathlib.Path("/proc").glob("[0-9]*"):
            if (process / "comm").read_text() == "tritonserver\\n":
                print(b"--allow-http=false" not in (process / "cmdline").read_bytes())
        """,
    )
    assert sorted(serving.split()) == ["False"] * (gpus - 1) + ["True"]


def test_a_killed_triton_is_restarted(gpus: int, containers: Containers, api: Api) -> None:
    containers.kill(TRITON, "tritonserver")
    wait_for(lambda: api.chat(max_tokens=1).status_code == 503, "the frontend to answer 503", 10)
    seconds = wait_for(lambda: api.chat(max_tokens=1).status_code == 200, "an answer", 90)
    say(f"200 again {seconds:.0f} s after rank 0 was killed")
    assert containers.inspect(TRITON)["RestartCount"] == 1


def test_triton_is_stopped_only_after_its_answers(
    gpus: int, checkout: Checkout, containers: Containers, api: Api
) -> None:
    """By `docker stop` of Triton alone, which the frontend outlives. Open MPI would kill its ranks after a second."""
    num_tokens = min(int(8 * api.tokens_per_s()), 6000)
    stream = api.stream(num_tokens)
    containers.stop(TRITON)
    stream.join(5)
    assert stream.done
    assert stream.num_tokens() == num_tokens
    status = containers.inspect(TRITON)["State"]["ExitCode"]
    logged = containers.logs(TRITON)[-3000:]
    checkout.make("up")  # for the tests that follow, whatever the status
    assert status == 0, logged


def test_make_down_lets_answers_end(gpus: int, checkout: Checkout, containers: Containers, api: Api) -> None:
    num_tokens = min(int(8 * api.tokens_per_s()), 6000)
    stream = api.stream(num_tokens)
    down = checkout.start("down")
    seconds = wait_for(lambda: down.poll() is not None, "make down", 2 * GRACE_S)
    stream.join(5)
    say(f"make down returned after {seconds:.0f} s, with an answer of {stream.num_tokens()} tokens in progress")
    assert stream.done
    assert stream.num_tokens() == num_tokens
    assert containers.running() == set()
