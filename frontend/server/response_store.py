"""Responses that clients may ask for later, in a SQLite file: each belongs to the API key that it was made with."""

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from frontend.errors import ResponseNotFound, StartupError, StoreFailed
from frontend.openai.job import StoredReply

Result = TypeVar("Result")

_log = logging.getLogger(__name__)

_SCHEMA = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
CREATE TABLE IF NOT EXISTS responses (
    id TEXT PRIMARY KEY, owner TEXT NOT NULL, created_at INTEGER NOT NULL, num_bytes INTEGER NOT NULL,
    reply BLOB NOT NULL, conversation BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS by_age ON responses (created_at, num_bytes);
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS total (only INTEGER PRIMARY KEY CHECK (only = 1), num_bytes INTEGER NOT NULL);
INSERT OR IGNORE INTO total SELECT 1, COALESCE(SUM(num_bytes), 0) FROM responses;
CREATE TRIGGER IF NOT EXISTS stored AFTER INSERT ON responses
    BEGIN UPDATE total SET num_bytes = num_bytes + NEW.num_bytes; END;
CREATE TRIGGER IF NOT EXISTS deleted AFTER DELETE ON responses
    BEGIN UPDATE total SET num_bytes = num_bytes - OLD.num_bytes; END;
COMMIT;
"""
_TOTAL = "SELECT num_bytes FROM total"
"""Kept in the file, because several processes write to it."""
_BEYOND = """
DELETE FROM responses WHERE rowid IN (
    SELECT rowid FROM (SELECT rowid, SUM(num_bytes) OVER (ORDER BY created_at DESC, rowid DESC) AS total FROM responses)
    WHERE total > ?
)
"""
_KEPT_WHEN_FULL = 0.9
"""Of `max_bytes`: room is made for many responses at once, because that looks at all of them."""
_BUSY_S = 5.0
"""How long to wait for another process that writes to the file."""
_DAY_S = 24 * 3600


class ResponseStore:
    """At most `max_bytes` of responses, none older than `max_days`; the oldest go first.

    A thread does all work on the file, in the order of the calls. `owner` is the name of an API key, empty without
    keys. Methods raise StoreFailed when the file cannot be read or written.
    """

    def __init__(self, file: Path, max_bytes: int, max_days: int) -> None:
        """Open the file, or make it, for this user only. Raises StartupError."""
        self._max_bytes, self._max_days = max_bytes, max_days
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="response-store")
        try:
            file.touch(mode=0o600)
            self._database = sqlite3.connect(file, timeout=_BUSY_S, check_same_thread=False)
            self._database.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as exc:
            raise StartupError(
                f"--response-store {file}: {exc}; accepted: a file that this server writes, or may make"
            ) from exc

    async def store(self, owner: str, stored: StoredReply) -> None:
        """Store a response; when this returns, it can be asked for."""
        await self._do(lambda: self._store(owner, stored))

    async def find(self, owner: str, response_id: str, param: str) -> StoredReply:
        """A stored response. Raises ResponseNotFound that names `param`."""
        found = await self._do(lambda: self._find(owner, response_id))
        if found is None:
            raise ResponseNotFound(response_id, param=param)
        return found

    async def delete(self, owner: str, response_id: str) -> None:
        """Delete a stored response. Raises ResponseNotFound."""
        if not await self._do(lambda: self._delete(owner, response_id)):
            raise ResponseNotFound(response_id, param="response_id")

    def close(self) -> None:
        """Finish the work that waits, and close the file."""
        self._thread.shutdown()
        self._database.close()

    async def _do(self, work: Callable[[], Result]) -> Result:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except sqlite3.Error as exc:
            _log.error("the response store failed: %s", exc)
            raise StoreFailed("Stored responses cannot be read or written; `store: false` goes without.") from exc

    def _store(self, owner: str, stored: StoredReply) -> None:
        num_bytes = len(stored.reply) + len(stored.conversation)
        row = (stored.id, owner, stored.created_at, num_bytes, stored.reply, stored.conversation)
        with self._database as database:
            database.execute("INSERT INTO responses VALUES (?, ?, ?, ?, ?, ?)", row)
            self._drop_old(database)

    def _drop_old(self, database: sqlite3.Connection) -> None:
        database.execute("DELETE FROM responses WHERE created_at < ?", (self._oldest(),))
        [num_bytes] = database.execute(_TOTAL).fetchone()
        if num_bytes > self._max_bytes:
            database.execute(_BEYOND, (_KEPT_WHEN_FULL * self._max_bytes,))

    def _find(self, owner: str, response_id: str) -> StoredReply | None:
        row = self._database.execute(
            "SELECT id, created_at, reply, conversation FROM responses WHERE id = ? AND owner = ? AND created_at >= ?",
            (response_id, owner, self._oldest()),
        ).fetchone()
        return row and StoredReply(id=row[0], created_at=row[1], reply=row[2], conversation=row[3])

    def _delete(self, owner: str, response_id: str) -> bool:
        with self._database as database:
            deleted = database.execute("DELETE FROM responses WHERE id = ? AND owner = ?", (response_id, owner))
        return deleted.rowcount > 0

    def _oldest(self) -> float:
        """Seconds since 1970 before which a response is too old."""
        return time.time() - self._max_days * _DAY_S
