"""Parts of the self check on their own: paths in a report, what a check costs, the tiny checkpoint."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from build_engine.errors import HostError
from build_engine.selfcheck.cost import Meter, resident_mib
from build_engine.selfcheck.programs import run_script
from build_engine.selfcheck.report import NotKnown, Report, hide_paths
from build_engine.selfcheck.tiny_checkpoint import VOCAB_SIZE, make_tiny_checkpoint
from build_engine.tensorrt_llm.layout import split_problem

PLACES = {"work": Path("/srv/ada/models/.engine.selfcheck"), "home": Path("/home/ada")}


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("its log is /srv/ada/models/.engine.selfcheck/tp1/serve.log", "its log is <work>/tp1/serve.log"),
        ("no '/home/ada/a model/x'", "no '<home>/a model/x'"),
        ("/opt/secret/place/file.py:12: error", "file.py:12: error"),
        ("left /data/ada/ behind", "left ada behind"),
        ("1/2 of w1/w3, 5 tokens/s, http://127.0.0.1:8000/v2", "1/2 of w1/w3, 5 tokens/s, http://127.0.0.1:8000/v2"),
    ],
)
def test_paths_are_hidden(text: str, hidden: str) -> None:
    assert hide_paths(text, PLACES) == hidden


def test_whatever_a_check_raises_becomes_its_line() -> None:
    def fail(error: Exception) -> str:
        raise error

    shown: list[str] = []
    report = Report(Meter(None), shown.append, PLACES)
    assert report.check("good", lambda: "found\n  it")
    assert not report.check("unknown", lambda: fail(NotKnown("no /home/ada/x")))
    assert not report.check("refused", lambda: fail(HostError("too old")))
    assert not report.check("broken", lambda: fail(ZeroDivisionError("x" * 1000)))
    assert [(line.status, line.subject) for line in report.lines] == [
        ("passed", "good"), ("not known", "unknown"), ("failed", "refused"), ("failed", "broken"),
    ]  # fmt: skip
    texts = [line.text for line in report.lines]
    assert texts[:3] == ["found it", "no <home>/x", "too old"]
    assert texts[3].startswith("ZeroDivisionError: xxx")
    assert len(texts[3]) == 300
    assert report.failures == 2
    assert shown[0] == "selfcheck: good"
    assert "failed     refused" in shown[3]


def test_memory_of_children_is_counted() -> None:
    allocate = "data = b'1' * 200_000_000; print(flush=True); input()"
    program = [sys.executable, "-c", allocate]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert 190 < resident_mib(child.pid) < 400
        with Meter(lambda: 7).measure() as measured:
            time.sleep(0.1)
        child.communicate(b"\n")
    cost = measured()
    assert cost.host_mib > 190
    assert cost.gpu_mib == 7
    assert 0.1 <= cost.seconds < 5


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("raise ValueError('no')", "status 1: ValueError: no"),
        ("print('text')", "the script printed no JSON"),
    ],
)
def test_a_script_that_fails_says_why(script: str, message: str) -> None:
    with pytest.raises(HostError, match=message):
        run_script(sys.executable, script, None)


def test_the_tiny_checkpoint_is_always_the_same_and_splits_among_two_gpus(tmp_path: Path) -> None:
    first, second = (make_tiny_checkpoint(tmp_path / name, 4096) for name in "ab")
    for file in first.path.iterdir():
        assert file.read_bytes() == (second.path / file.name).read_bytes(), file.name
    assert first.config.max_position_embeddings == 4096
    assert split_problem(first.config, 1) is None
    assert split_problem(first.config, 2) is None
    assert first.size_bytes < 16 * 2**20


def test_every_id_of_the_tiny_tokenizer_has_a_token(tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(make_tiny_checkpoint(tmp_path / "tiny", 64).path / "tokenizer.json"))
    assert tokenizer.get_vocab_size() == VOCAB_SIZE
    assert sorted(tokenizer.get_vocab().values()) == list(range(VOCAB_SIZE))
    text = "Was ist ein Haus? 家 \n"
    assert tokenizer.decode(tokenizer.encode(text).ids) == text
