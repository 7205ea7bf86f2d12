"""The directory of one instance: no other instance uses it, and no other user reads it."""

from pathlib import Path

import pytest

from frontend.errors import StartupError
from frontend.local.runtime_dir import RuntimeDir, open_private


def test_two_instances_do_not_share_a_directory(tmp_path: Path) -> None:
    first = RuntimeDir(tmp_path / "run")
    with pytest.raises(StartupError) as error:
        RuntimeDir(tmp_path / "run")
    assert str(error.value) == f"{tmp_path}/run is used by another instance; choose another with --runtime-dir"
    first.close()
    RuntimeDir(tmp_path / "run").close()


def test_the_key_is_a_header_for_curl_that_only_its_user_can_read_and_goes_at_the_end(tmp_path: Path) -> None:
    runtime_dir = RuntimeDir(tmp_path)
    runtime_dir.write_triton_key("abc")
    assert (tmp_path / "triton.header").read_text() == "triton-key: abc\n"
    assert (tmp_path / "triton.header").stat().st_mode & 0o777 == 0o600
    runtime_dir.close()
    assert not (tmp_path / "triton.header").exists()


def test_a_private_file_replaces_one_that_others_can_read(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("old")
    (tmp_path / "log").chmod(0o644)
    open_private(tmp_path / "log").close()
    assert (tmp_path / "log").read_text() == ""
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600
