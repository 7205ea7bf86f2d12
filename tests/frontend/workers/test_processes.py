"""`--workers`: several processes behind one address, which clients and operators see as one server."""

import asyncio
import socket
import sys
from pathlib import Path

import httpx
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.conftest import free_ports
from tests.frontend.fake_triton import Endless, Events
from tests.frontend.frontend_process import ROOT, Frontend, run, started

TOKENS = [Events([[6004]], pause_s=0.02)] * 10


def workers_of(frontend: Frontend) -> list[psutil.Process]:
    """The worker processes. Those that have ended and were not waited for do not count."""
    children = psutil.Process(frontend.process.pid).children()
    return [child for child in children if child.status() != psutil.STATUS_ZOMBIE]


def cpu_s_of_each(frontend: Frontend) -> list[float]:
    return [sum(worker.cpu_times()[:2]) for worker in workers_of(frontend)]


async def until_all_serve(frontend: Frontend, number: int) -> None:
    """Each worker has its share of connections once it listens."""
    while len(listening := [worker for worker in workers_of(frontend) if listens(worker)]) != number:
        await asyncio.sleep(0.1)
    assert len(workers_of(frontend)) == len(listening)


def listens(worker: psutil.Process) -> bool:
    try:
        return any(connection.status == psutil.CONN_LISTEN for connection in worker.net_connections())
    except psutil.NoSuchProcess:
        return False


async def counted(frontend: Frontend, name: str) -> float:
    text = (await frontend.client.get("/metrics")).text
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return sum(sample.value for sample in samples if sample.name == name)


def test_all_workers_serve_one_address_and_count_as_one_server(
    engine_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FRONTEND_WORKERS", "2")

    async def scenario() -> None:
        async with started(engine_dir, TOKENS) as frontend:
            await until_all_serve(frontend, 2)
            assert [worker.cmdline()[1:] for worker in workers_of(frontend)] == [["-m", "frontend.worker"]] * 2
            received: list[str] = []
            before = cpu_s_of_each(frontend)
            await asyncio.gather(*[frontend.stream(received) for _ in range(24)])
            assert "".join(received).count("data: [DONE]") == 24
            assert all(after > cpu_s for cpu_s, after in zip(before, cpu_s_of_each(frontend), strict=True))
            for _ in range(6):  # whichever worker answers
                assert await counted(frontend, "vllm:generation_tokens_total") == 240
                assert await counted(frontend, "vllm:request_success_total") == 24
                assert await counted(frontend, "vllm:num_requests_running") == 0
                assert (await frontend.client.get("/load")).json() == {"server_load": 0}

    run(scenario())


def test_the_engine_has_no_more_generations_than_it_takes(engine_dir: Path) -> None:
    async def scenario() -> None:
        async with started(engine_dir, [Endless(6004)], "--workers", "3") as frontend:
            await until_all_serve(frontend, 3)
            received: list[str] = []
            streams = [asyncio.create_task(frontend.stream(received)) for _ in range(12)]
            while await counted(frontend, "vllm:num_requests_waiting") != 12 - frontend.triton.max_batch_size:
                await asyncio.sleep(0.05)
            assert frontend.triton.num_running == frontend.triton.max_batch_size
            assert (await frontend.client.get("/load")).json() == {"server_load": 12}
            assert await frontend.status("/health/generate") == 200  # though it waits for its own token
            for stream in streams:
                stream.cancel()
            while await counted(frontend, "vllm:num_requests_running"):
                await asyncio.sleep(0.05)

    run(scenario())


def test_a_worker_that_is_killed_is_started_again_and_the_others_go_on(engine_dir: Path) -> None:
    async def scenario() -> None:
        long = [Events([[6004]], pause_s=0.1)] * 60
        async with started(engine_dir, long, "--workers", "2") as frontend:
            await until_all_serve(frontend, 2)
            results = await asyncio.gather(
                *[received_by(frontend) for _ in range(4)], kill_one(frontend), return_exceptions=True
            )
            complete = [result for result in results[:-1] if isinstance(result, str) and "[DONE]" in result]
            broken = [result for result in results[:-1] if isinstance(result, httpx.RemoteProtocolError)]
            assert len(complete) + len(broken) == 4
            before = await counted(frontend, "vllm:generation_tokens_total")
            await until_all_serve(frontend, 2)
            while frontend.triton.num_running:  # Triton notices at its next write that the connections are closed
                await asyncio.sleep(0.05)
            assert await counted(frontend, "vllm:num_requests_running") == 0
            assert await counted(frontend, "vllm:generation_tokens_total") >= before >= 60 * len(complete)
            frontend.triton.script = TOKENS
            await asyncio.gather(*[frontend.stream([]) for _ in range(16)])

    run(scenario())


async def received_by(frontend: Frontend) -> str:
    received: list[str] = []
    await frontend.stream(received)
    return "".join(received)


async def kill_one(frontend: Frontend) -> None:
    while frontend.triton.num_running < 4:
        await asyncio.sleep(0.05)
    await counted(frontend, "vllm:generation_tokens_total")
    workers_of(frontend)[0].kill()


def test_workers_end_with_the_process_that_started_them(engine_dir: Path) -> None:
    async def scenario() -> None:
        async with started(engine_dir, TOKENS, "--workers", "2") as frontend:
            await until_all_serve(frontend, 2)
            workers = workers_of(frontend)
            frontend.process.kill()
            await asyncio.to_thread(psutil.wait_procs, workers, 20)
            assert not any(worker.is_running() for worker in workers)

    run(scenario())


def frontend_output(engine_dir: Path, port: int, *options: str) -> tuple[int, str]:
    """The exit code and the log of one that cannot start."""

    async def scenario() -> tuple[int, str]:
        command = [sys.executable, "-m", "frontend", "--engine-dir", str(engine_dir), "--port", str(port), *options]
        process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stderr=asyncio.subprocess.PIPE)
        _, log = await asyncio.wait_for(process.communicate(), 60)
        return process.returncode or 0, log.decode()

    return asyncio.run(scenario())


@pytest.mark.parametrize("shares", [0, 1])
def test_a_port_that_another_server_has_is_refused(engine_dir: Path, shares: int) -> None:
    """Also if the other one would share it, as another server with workers does."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, shares)
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        exit_code, log = frontend_output(engine_dir, port, "--workers", "2")
        assert exit_code == 1
        assert log.splitlines()[-1] == f"frontend: cannot listen on 127.0.0.1:{port}: Address already in use"


def test_what_no_worker_can_start_with_is_reported_once(tmp_path: Path) -> None:
    [port] = free_ports(1)
    exit_code, log = frontend_output(tmp_path, port, "--workers", "4")
    assert exit_code == 1
    assert log.count("frontend: cannot read") == 1
    assert log.splitlines()[-1] == "frontend: worker 0 has not started; its exit code is 1"
