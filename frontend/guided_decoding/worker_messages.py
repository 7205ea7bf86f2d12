"""What compiler.py and worker.py tell each other: messages behind their length, the first of which says for which
vocabulary and within which limits.
"""

import struct
from dataclasses import dataclass

LENGTH = struct.Struct("<I")


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """What tokens stand for.

    `token_bytes`: by token id; a token that has no entry is never part of an answer. `stop_token_ids`: what ends one.
    """

    token_bytes: dict[int, bytes]
    stop_token_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GuideLimits:
    """What compiling one guide may take. Bytes end in `_bytes`, seconds in `_s`."""

    guide_bytes: int = 256 * 1024
    ebnf_bytes: int = 256 * 1024
    memory_bytes: int = 2 * 1024**3
    time_s: float = 5.0
