"""What a worker needs to start. It comes through a pipe: other users can read neither arguments nor secrets there."""

import pickle
from dataclasses import dataclass
from typing import BinaryIO

from frontend.settings import Settings


@dataclass(frozen=True, slots=True)
class Start:
    """The settings, and descriptors that the worker has inherited: of bound sockets, and of its link."""

    settings: Settings
    listeners: tuple[int, ...]
    link: int

    @classmethod
    def read(cls, file: BinaryIO) -> "Start":
        """What `to_bytes` has made. Its writer is the process that started this one."""
        start = pickle.load(file)
        assert isinstance(start, cls)
        return start

    def to_bytes(self) -> bytes:
        """For the pipe."""
        return pickle.dumps(self)
