"""What the supervisor starts again when a process ends, without processes."""

from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import pytest

from frontend.local.stop_signals import StopSignals
from frontend.local.supervisor import Ended, Supervisor, engine_dir_of, last_lines


class Rehearsal(Supervisor):
    """Writes down what it would do. `failures` is how many starts fail."""

    def __init__(self, model_repository: Path, *, restart: bool = True, failures: int = 0) -> None:
        arguments = Namespace(model_repository=model_repository, model="openvino", restart=restart)
        super().__init__(arguments, [], "http://127.0.0.1:1", frontend_stops_within_s=1, stop_signals=StopSignals())
        self.manifest = engine_dir_of(arguments) / "manifest.json"
        self.manifest.parent.mkdir(parents=True)
        self.manifest.write_text("engine 1")
        self._engine = b"engine 1"
        self.failures = failures
        self.done: list[str] = []
        self.said: list[str] = []

    def _start(self, name: str) -> None:
        self.done.append(f"start {name}")

    def _stop(self, name: str, signum: int) -> None:
        self.done.append(f"stop {name}")

    def _end(self, name: str) -> None:
        self.done.append(f"end {name}")

    def _await_serving(self, say: Callable[[str], None]) -> None:
        self.failures -= 1
        if self.failures >= 0:
            raise Ended("triton", "triton ended with status 1 while starting")

    def after_end_of(self, name: str) -> list[str]:
        self._start_again(Ended(name, f"{name} ended with status -9"), self.said.append)
        return self.done


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("frontend.local.supervisor.time.sleep", lambda _: None)


@pytest.mark.parametrize("name", ["triton", "frontend"])
def test_only_what_ended_is_started_again_after_the_rest_of_it_is_killed(tmp_path: Path, name: str) -> None:
    rehearsal = Rehearsal(tmp_path)
    assert rehearsal.after_end_of(name) == [f"end {name}", f"start {name}"]
    assert rehearsal.said == [
        f"{name} ended with status -9",
        f"starting {name} again",
        f"{name} serves again after 0.0 s",
    ]


def test_the_frontend_is_started_again_with_triton_if_another_engine_was_published(tmp_path: Path) -> None:
    rehearsal = Rehearsal(tmp_path)
    rehearsal.manifest.write_text("engine 2")
    done = ["end triton", "stop frontend", "start frontend", "start triton"]
    assert rehearsal.after_end_of("triton") == done


def test_what_ends_while_it_starts_is_started_again_too(tmp_path: Path) -> None:
    rehearsal = Rehearsal(tmp_path, failures=2)
    assert rehearsal.after_end_of("triton") == ["end triton", "start triton"] * 3
    assert rehearsal.said[3] == "starting triton again in 1 s"


@pytest.mark.parametrize(("restart", "starts"), [(False, 0), (True, 5)])
def test_without_end_or_without_the_option_the_end_is_passed_on(tmp_path: Path, restart: bool, starts: int) -> None:
    rehearsal = Rehearsal(tmp_path, restart=restart, failures=100)
    with pytest.raises(Ended):
        rehearsal.after_end_of("triton")
    assert rehearsal.done.count("start triton") == starts


def test_the_end_of_tritons_log_is_shown_without_its_tables() -> None:
    table = "+-----+---+\n| rate_limit | OFF |\n+-----+---+\n\n"
    reason = "error: creating server: Internal: Stub process is not healthy"
    log = "first\n" + "".join(f"line {number}\n" for number in range(20)) + table * 10 + f"{reason}\n"
    assert last_lines(log).splitlines() == [*(f"  line {number}" for number in range(6, 20)), f"  {reason}"]
