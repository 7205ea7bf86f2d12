"""Disk, memory and ports: what is missing is named with its remedy."""

import os
import re
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
from collections import namedtuple
from pathlib import Path

import pytest

from frontend.first_run import disk, memory, ports

ROOT = Path(__file__).parents[3]
MB = 10**6
Usage = namedtuple("Usage", "free")


def free(monkeypatch: pytest.MonkeyPatch, **megabytes: int) -> None:
    """How much is left, by directory: `here`, `tmp` and `shm`."""
    left = {"/tmp": "tmp", "/dev/shm": "shm"}
    monkeypatch.setattr(
        shutil, "disk_usage", lambda path: Usage(megabytes.get(left.get(str(path), "here"), 10_000) * MB)
    )
    monkeypatch.setattr(tempfile, "gettempdir", lambda: "/tmp")


def test_enough_room_is_no_problem(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    free(monkeypatch, here=2000)
    assert list(disk.problems(2000 * MB, packages=True)) == []


@pytest.mark.parametrize(
    ("megabytes", "named"),
    [
        ({"here": 1999}, r"disk: \S* has 1999 MB left, 2000 MB are needed; remove files there, or move this checkout"),
        ({"tmp": 10}, r"disk: /tmp has 10 MB left, 60 MB are needed; .* TMPDIR=/path make"),
        ({"shm": 1}, r"disk: /dev/shm has 1 MB left, 16 MB are needed; make it larger, in Docker with --shm-size"),
    ],
)
def test_a_full_disk_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, megabytes: dict[str, int], named: str
) -> None:
    monkeypatch.chdir(tmp_path)
    free(monkeypatch, **megabytes)
    (problem,) = disk.problems(2000 * MB, packages=True)
    assert re.match(named, problem)


def test_pips_directory_does_not_matter_when_nothing_is_installed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    free(monkeypatch, tmp=10)
    assert list(disk.problems(0, packages=False)) == []


def test_packages_are_cached_where_uv_keeps_them_if_it_can(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    free(monkeypatch)
    assert disk.uv_cache({"HOME": str(tmp_path)}) == tmp_path / ".cache" / "uv"
    assert disk.uv_cache({"HOME": "/x", "XDG_CACHE_HOME": str(tmp_path)}) == tmp_path / "uv"
    assert disk.uv_cache({"HOME": "/x", "UV_CACHE_DIR": str(tmp_path / "named")}) == tmp_path / "named"
    free(monkeypatch, here=800)
    assert disk.uv_cache({"HOME": str(tmp_path)}) == Path(".cache", "uv")
    free(monkeypatch)
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert disk.uv_cache({"HOME": str(tmp_path)}) == Path(".cache", "uv")


def test_a_colon_in_the_path_is_named_and_a_space_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    free(monkeypatch)
    for name in ("with space", "with:colon"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "with space")
    assert list(disk.problems(0, packages=False)) == []
    monkeypatch.chdir(tmp_path / "with:colon")
    (problem,) = disk.problems(0, packages=False)
    assert problem.startswith(
        f"path: {tmp_path}/with:colon has a colon in it, which PATH cannot hold; move this checkout"
    )


# ---- memory --------------------------------------------------------------------------------------------------------


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with 4000 MiB free and 96 MiB of swap, without groups."""
    monkeypatch.setattr(memory, "PROC", tmp_path / "proc")
    monkeypatch.setattr(memory, "CGROUPS", tmp_path / "cgroup")
    (tmp_path / "proc" / "self").mkdir(parents=True)
    fields = {"MemTotal": 8000, "MemFree": 100, "MemAvailable": 4000, "SwapFree": 96}
    lines = "".join(f"{name}: {megabytes * 1024} kB\n" for name, megabytes in fields.items())
    (tmp_path / "proc" / "meminfo").write_text(lines)
    (tmp_path / "proc" / "self" / "cgroup").write_text("")
    return tmp_path


def write(directory: Path, **files: str) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (directory / name.replace("__", ".")).write_text(text)


def test_memory_is_what_the_machine_can_give_with_its_swap(proc: Path) -> None:
    assert memory.available_bytes() == 4096 * 2**20


def test_memory_is_bounded_by_the_groups_around_this_process(proc: Path) -> None:
    (proc / "proc" / "self" / "cgroup").write_text("0::/box/inner\n")
    inner = proc / "cgroup" / "box" / "inner"
    write(inner, memory__max="max\n", memory__current="5\n", memory__stat="inactive_file 0\n")
    stat = "anon 700\ninactive_file 300\n"
    write(proc / "cgroup" / "box", memory__max="2000000000\n", memory__current="1000000000\n", memory__stat=stat)
    assert memory.available_bytes() == 2_000_000_000 - 1_000_000_000 + 300


def test_memory_is_bounded_by_groups_of_the_first_version(proc: Path) -> None:
    (proc / "proc" / "self" / "cgroup").write_text("9:name=systemd:/\n4:memory:/of/the/host\n0::/\n")
    write(
        proc / "cgroup" / "memory",
        memory__limit_in_bytes="1000000000\n",
        memory__usage_in_bytes="100000000\n",
        memory__stat="total_inactive_file 50\n",
    )
    assert memory.available_bytes() == 900_000_050


def test_too_little_memory_is_named_with_both_numbers(proc: Path) -> None:
    assert list(memory.problems(4096 * 2**20)) == []
    (problem,) = memory.problems(5_000 * MB)
    assert problem == (
        "memory: 4294 MB are free, 5000 MB are needed. End other programs, or raise the limit of this container"
        " or machine"
    )


def test_a_limit_of_the_shell_is_named_with_the_command_that_lifts_it() -> None:
    program = "from frontend.first_run import memory; print(*memory.problems(0))"
    command = f"ulimit -v 4000000; exec {sys.executable} -c '{program}'"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("memory: this shell lets a process map 4096 MB (ulimit -v); accepted: ")
    assert done.stdout.endswith("Lift the limit: ulimit -v unlimited\n")
    assert resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY
    assert list(memory.problems(0)) == []


# ---- ports ---------------------------------------------------------------------------------------------------------


def test_a_busy_port_is_named_with_one_that_is_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        (problem,) = ports.problems(["--port", str(port), "--max-queue-length", "3"])
    found = re.fullmatch(
        rf"port: cannot listen on 127\.0\.0\.1:{port} \(Address already in use\); choose another with --port:"
        r' make run OPTIONS="--port (\d+)"',
        problem,
    )
    assert found
    assert list(ports.problems(["--port", found[1]])) == []


@pytest.mark.parametrize("option", ["--triton-port", "--metrics-port"])
def test_ports_of_triton_are_looked_at_where_they_are_named(option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy, socket.create_server(("127.0.0.1", 0)) as other:
        free_port = other.getsockname()[1]
        other.close()
        (problem,) = ports.problems(["--port", str(free_port), option, str(busy.getsockname()[1])])
    assert f"choose another with {option}" in problem


def test_an_address_of_another_machine_is_named_with_its_option() -> None:
    (problem,) = ports.problems(["--host", "192.0.2.1", "--port", "8000"])
    assert problem == (
        "port: cannot listen on 192.0.2.1:8000 (Cannot assign requested address); choose another with --host"
    )


def test_help_is_not_printed_by_the_check(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
    assert list(ports.problems(["--help", "--port", str(port)])) == []
    assert capsys.readouterr().out == ""
