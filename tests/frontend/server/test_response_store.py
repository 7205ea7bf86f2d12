"""The file of stored responses: its bounds, its owners, and what it does when it cannot be used."""

import asyncio
import sqlite3
import stat
import time
from pathlib import Path

import pytest

from frontend.errors import ResponseNotFound, StartupError
from frontend.openai.job import StoredReply
from frontend.server.response_store import ResponseStore

NOW = int(time.time())
DAY = 24 * 3600


def reply(name: str, *, created_at: int = NOW, num_bytes: int = 100) -> StoredReply:
    return StoredReply(id=name, created_at=created_at, reply=b"{}", conversation=b"[" + b" " * (num_bytes - 3))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "responses.sqlite"


async def names_in(store: ResponseStore, *names: str) -> list[str]:
    """Those of `names` that are stored."""
    found = []
    for name in names:
        try:
            found.append((await store.find("", name, "response_id")).id)
        except ResponseNotFound:
            continue
    return found


async def test_a_response_outlives_the_process(file: Path) -> None:
    store = ResponseStore(file, 10_000, 30)
    await store.store("", reply("a"))
    store.close()
    again = ResponseStore(file, 10_000, 30)
    assert await again.find("", "a", "response_id") == reply("a")
    again.close()


async def test_the_oldest_go_when_there_are_too_many_bytes(file: Path) -> None:
    store = ResponseStore(file, 1000, 30)
    for number in range(10):
        await store.store("", reply(str(number), created_at=NOW + number))
    assert await names_in(store, *map(str, range(10))) == [*map(str, range(10))]
    await store.store("", reply("new", created_at=NOW + 10))
    assert await names_in(store, "0", "1", "2", "9", "new") == ["2", "9", "new"]
    store.close()


async def test_several_processes_keep_the_bound_together(file: Path) -> None:
    stores = [ResponseStore(file, 1000, 30) for _ in range(3)]
    for number in range(12):
        await stores[number % 3].store("", reply(str(number), created_at=NOW + number))
    assert await names_in(stores[0], *map(str, range(12))) == [*map(str, range(2, 12))]
    for store in stores:
        store.close()


async def test_a_file_of_an_older_release_is_counted(file: Path) -> None:
    """It has neither the total nor the triggers that keep it."""
    store = ResponseStore(file, 1000, 30)
    for number in range(10):
        await store.store("", reply(str(number), created_at=NOW + number))
    store.close()
    with sqlite3.connect(file) as database:
        database.executescript("DROP TRIGGER stored; DROP TRIGGER deleted; DROP TABLE total;")
    store = ResponseStore(file, 1000, 30)
    await store.store("", reply("new", created_at=NOW + 10))
    assert await names_in(store, "0", "1", "2", "9", "new") == ["2", "9", "new"]
    store.close()


async def test_bytes_of_deleted_responses_are_free_again(file: Path) -> None:
    store = ResponseStore(file, 1000, 30)
    for number in range(50):
        await store.store("", reply(str(number)))
        if number >= 2:
            await store.delete("", str(number))
    assert await names_in(store, "0", "1") == ["0", "1"]
    store.close()


async def test_an_old_response_is_gone(file: Path) -> None:
    store = ResponseStore(file, 1000, 30)
    await store.store("", reply("young", created_at=NOW - 29 * DAY))
    await store.store("", reply("old", created_at=NOW - 31 * DAY))
    assert await names_in(store, "young", "old") == ["young"]
    store.close()


async def test_each_owner_has_its_own(file: Path) -> None:
    store = ResponseStore(file, 1000, 30)
    await store.store("alice", reply("a"))
    for owner in ("bob", ""):
        with pytest.raises(ResponseNotFound):
            await store.find(owner, "a", "response_id")
        with pytest.raises(ResponseNotFound):
            await store.delete(owner, "a")
    assert (await store.find("alice", "a", "response_id")).id == "a"
    store.close()


async def test_responses_are_stored_in_the_order_of_the_calls(file: Path) -> None:
    store = ResponseStore(file, 10**6, 30)
    await asyncio.gather(*(store.store("", reply(str(number))) for number in range(100)))
    assert len(await names_in(store, *map(str, range(100)))) == 100
    store.close()


def test_only_this_user_reads_the_file(file: Path) -> None:
    ResponseStore(file, 1000, 30).close()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize("content", ["directory", "text"])
def test_a_file_that_is_none_ends_the_start(file: Path, content: str) -> None:
    if content == "directory":
        file.mkdir()
    else:
        file.write_text("not a database, but long enough that SQLite looks at its header")
    with pytest.raises(StartupError, match=f"--response-store {file}: .*; accepted: a file that this server"):
        ResponseStore(file, 1000, 30)
