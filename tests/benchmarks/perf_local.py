"""`make perf` without containers: perf_analyzer on the CPU engine of this machine.

Triton streams to perf_analyzer over gRPC, which `make run` keeps closed. So this starts a Triton of its own with the
published engine and gRPC on a free port of loopback, and ends it when all is measured. While it runs, every user of
this machine can send it inference requests. A server that runs meanwhile shares the CPU, and both are slower.
"""

import argparse
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from frontend.errors import StartupError
from frontend.local.child_process import kill_session, start_child
from frontend.local.health import health_status
from frontend.local.ports import ReservedPort
from frontend.local.triton_files import TritonFiles
from frontend.local.tritonserver import ADMIN_APIS, UNSENDABLE_KEY, TritonSettings, TritonUnavailable, triton_command
from tests.benchmarks.perf_analyzer import levels, measure_levels
from tests.benchmarks.perf_program import find_program

START_TIMEOUT_S = 300.0
END_TIMEOUT_S = 20.0


@contextmanager
def triton_with_grpc(model_repository: Path, model: str) -> Iterator[str]:
    """A Triton that is ready, and its gRPC address. Raises SystemExit if it does not start."""
    with ExitStack() as held:
        runtime_dir = Path(held.enter_context(tempfile.TemporaryDirectory()))
        http, grpc, metrics = (held.enter_context(closing(ReservedPort(0, "PORT"))).port for _ in range(3))
        files = TritonFiles()
        settings = TritonSettings(
            model_repository=model_repository,
            model=model,
            http_port=http,
            metrics_port=metrics,
            runtime_dir=runtime_dir,
            shm_prefix=files.shm_prefix,
        )
        try:
            command, environment = triton_command(settings)
        except TritonUnavailable as exc:
            raise SystemExit(str(exc)) from exc
        command += ["--allow-grpc=true", "--grpc-address=127.0.0.1", f"--grpc-port={grpc}"]
        command += [f"--grpc-restricted-protocol={ADMIN_APIS}:{UNSENDABLE_KEY}"]
        log = runtime_dir / "triton.log"
        with log.open("wb") as output:
            triton = start_child(command, environment=environment, output=output, umask=0o077)
        try:
            _await_ready(triton, f"http://127.0.0.1:{http}/v2/models/{model}/ready", log)
            files.are_complete()
            yield f"127.0.0.1:{grpc}"
        finally:
            _end(triton)
            files.remove()


def _await_ready(triton: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    give_up = time.monotonic() + START_TIMEOUT_S
    while health_status(url) != 200:
        if triton.poll() is not None or time.monotonic() > give_up:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
            raise SystemExit(f"{tail}\nTriton did not get ready")
        time.sleep(0.1)


def _end(triton: "subprocess.Popen[bytes]") -> None:
    triton.terminate()
    try:
        triton.wait(END_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        pass
    finally:
        kill_session(triton)
        triton.wait()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.perf_local")
    parser.add_argument("--model-repository", type=Path, default=Path("model_repository"), metavar="DIR")
    parser.add_argument("--model", default="openvino", help="the model's name in Triton (default: %(default)s)")
    parser.add_argument("--concurrency", type=levels, default="1:33:8", metavar="FIRST[:LAST[:STEP]]")
    parser.add_argument("--directory", type=Path, default=Path(".cache/perf"), metavar="DIR", help="requests, results")
    given = parser.parse_args()
    program = find_program()
    command = ["env", *(f"{name}={value}" for name, value in program.environment.items()), str(program.path)]
    engine_dir = given.model_repository / given.model / "1" / "engine"
    try:
        with triton_with_grpc(given.model_repository, given.model) as url:
            print(f"Triton serves gRPC at {url} until this ends (process {os.getpid()})", flush=True)
            measure_levels(command, engine_dir, given.model, url, given.concurrency, given.directory)
    except StartupError as exc:
        raise SystemExit(str(exc)) from exc


if __name__ == "__main__":
    main()
