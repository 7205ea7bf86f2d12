"""Which lines of a file are API keys, and which headers carry one."""

import re
import subprocess
from hashlib import sha256
from pathlib import Path

import pytest

from frontend.errors import InvalidApiKey, StartupError
from frontend.server.middleware.api_keys import authenticate, read_api_keys

HELLO = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
"""printf %s hello | sha256sum"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "keys"
    path.write_text(text)
    return path


def line(key: str, name: str = "") -> str:
    return f"sha256:{sha256(key.encode()).hexdigest()} {name}\n"


def test_keys_of_the_file_and_of_the_environment_are_accepted_by_name(tmp_path: Path) -> None:
    file = write(tmp_path, f"# ours\n\nsha256:{HELLO} alice\n{line('other').upper().replace('SHA', 'sha')}")
    keys = read_api_keys(file, ["plain"])
    assert authenticate(keys, b"Bearer hello") == "alice"
    assert authenticate(keys, b"bearer  other") == f"sha256:{sha256(b'other').hexdigest()[:8]}"
    assert authenticate(keys, b"Bearer plain") == f"sha256:{sha256(b'plain').hexdigest()[:8]}"


def test_keys_are_not_kept(tmp_path: Path) -> None:
    assert "plain" not in repr(read_api_keys(None, ["plain"]))


def test_two_keys_of_one_name_are_one_caller(tmp_path: Path) -> None:
    keys = read_api_keys(write(tmp_path, line("old", "alice") + line("new", "alice")), [])
    assert authenticate(keys, b"Bearer old") == authenticate(keys, b"Bearer new") == "alice"


def test_line_can_be_made_as_the_documentation_says(tmp_path: Path) -> None:
    command = (read_api_keys.__doc__ or "").split("\n\n")[2].strip()
    subprocess.run(command, shell=True, check=True, cwd=tmp_path, env={"KEY": "s3cret %s", "PATH": "/usr/bin:/bin"})
    assert (tmp_path / "keys").read_text() == f"sha256:{sha256(b's3cret %s').hexdigest()} alice\n"


@pytest.mark.parametrize(
    "header",
    [None, b"", b"Bearer", b"Bearer ", b"hello", b"Basic hello", b"Bearer hello hello", b"Bearer Hello", b"Bearer \xff",
     f"Bearer sha256:{HELLO}".encode(), f"Bearer {HELLO}".encode()],
)  # fmt: skip
def test_header_without_a_known_key_is_refused_and_not_repeated(tmp_path: Path, header: bytes | None) -> None:
    keys = read_api_keys(write(tmp_path, f"sha256:{HELLO}"), [])
    with pytest.raises(InvalidApiKey) as caught:
        authenticate(keys, header)
    assert "hello" not in caught.value.message.lower()


@pytest.mark.parametrize(
    "bad",
    ["hello", HELLO, f"sha256:{HELLO[:-1]}", f"sha256:{HELLO}0", f"sha1:{HELLO}", f"sha256 {HELLO}",
     f"sha256:{HELLO} a b", f"sha256:{HELLO} größer"],
)  # fmt: skip
def test_line_that_is_no_key_is_refused_by_number_and_not_repeated(tmp_path: Path, bad: str) -> None:
    file = write(tmp_path, f"\n{line('good')}{bad}\n")
    with pytest.raises(
        StartupError, match=f"^{re.escape(str(file))}, line 3 is not an API key; accepted: sha256:"
    ) as caught:
        read_api_keys(file, [])
    assert bad not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (line("a") + line("b") + line("a", "name"), "line 3: this key is in the file already"),
        ("# none\n", "no API key"),
    ],
)
def test_file_with_a_repeated_key_or_none_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(StartupError, match=reason):
        read_api_keys(write(tmp_path, text), [])


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o640, False), (0o644, True)])
def test_file_that_all_may_read_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int, warned: bool
) -> None:
    file = write(tmp_path, line("a"))
    file.chmod(mode)
    assert len(read_api_keys(file, [])) == 1
    assert ("every user of this host may read" in caplog.text) is warned


def test_file_that_all_may_write_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path, line("a"))
    file.chmod(0o666)
    with pytest.raises(StartupError, match=r"every user of this host may write .* \(mode 0666\); accepted: chmod o-w"):
        read_api_keys(file, [])


def test_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="No such file"):
        read_api_keys(tmp_path / "none", [])
    (tmp_path / "latin").write_bytes(b"\xe4")
    with pytest.raises(StartupError, match="not UTF-8"):
        read_api_keys(tmp_path / "latin", [])
