"""What is said while Triton starts."""

from pathlib import Path

import pytest

from frontend.local.starting import Starting, remedy, stage

LOG = """I1130 01:00:00.000000 10 pinned_memory_manager.cc:273] "CUDA memory pool disabled"
I1130 01:00:01.000000 10 model_lifecycle.cc:473] "loading: openvino:1"
I1130 01:00:05.000000 10 model_lifecycle.cc:849] "successfully loaded 'openvino'"
I1130 01:00:05.100000 10 http_server.cc:4725] "Started HTTPService at 127.0.0.1:40001"
""".splitlines(keepends=True)
"""As Triton 2.55 writes them."""


@pytest.mark.parametrize(
    ("num_lines", "expected"),
    [
        (0, "Triton starts"),
        (1, "Triton starts"),
        (2, "Triton loads the engine"),
        (3, "Triton has loaded the engine; the frontend starts"),
        (4, "Triton has loaded the engine; the frontend starts"),
    ],
)
def test_the_log_says_what_triton_is_at(num_lines: int, expected: str) -> None:
    assert stage("".join(LOG[:num_lines])) == expected


def test_no_three_seconds_pass_without_a_word(tmp_path: Path) -> None:
    now, said, log = 0.0, list[tuple[float, str]](), tmp_path / "triton.log"
    log.write_text("")
    starting = Starting(log, lambda text: said.append((now, text)), clock=lambda: now)
    for tenth in range(1, 100):
        now = tenth / 10
        starting.tick()
        if tenth == 30:
            log.write_text("".join(LOG[:2]))
    assert said == [
        (2.0, "Triton starts, 2 s"),
        (4.0, "Triton loads the engine, 4 s"),
        (6.0, "Triton loads the engine, 6 s"),
        (8.0, "Triton loads the engine, 8 s"),
    ]


def test_a_model_without_its_process_is_noticed_in_seconds(tmp_path: Path) -> None:
    now, log, children = 0.0, tmp_path / "triton.log", list[int]()
    log.write_text("".join(LOG[:2]))
    starting = Starting(log, lambda _: None, clock=lambda: now)
    now = 4.0
    assert not starting.has_no_backend(lambda: children)
    with log.open("a") as file:
        file.write('I1130 02 python_be.cc:2249] "TRITONBACKEND_ModelInstanceInitialize: openvino_0_0 (CPU device 0)"\n')
    children.append(1)
    now = 8.0
    assert not starting.has_no_backend(lambda: children)
    children.clear()
    now = 10.0
    assert not starting.has_no_backend(lambda: children)
    now = 11.0
    assert starting.has_no_backend(lambda: children)


def test_an_engine_that_was_killed_gets_a_remedy() -> None:
    log = "backend_model.cc:692] ERROR: Failed to create instance: Stub process 'openvino_0_0' is not healthy."
    assert remedy(log).startswith("\nthe engine's process ended, most often for want of memory: end other programs")
    assert remedy("successfully loaded 'openvino'") == ""
