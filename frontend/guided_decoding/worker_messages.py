"""What compiler.py and worker.py send each other: pickled requests and JSON answers, each preceded by its length.

The first request is the Vocabulary and the GuideLimits, every other one a constraint.
"""

import struct
from dataclasses import dataclass

LENGTH = struct.Struct("<I")
"""The length of a message in bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GuideLimits:
    """Upper limits for compiling one constraint; bytes end in `_bytes`, seconds in `_s`.

    `constraint_bytes` limits the constraint's `repr`, `ebnf_bytes` the grammar that it is translated to,
    `compiled_bytes` xgrammar's estimate of the compiled grammar, by which TensorRT-LLM bounds its cache (1 GB), and
    `memory_bytes` the address space of a worker process. `cpu_s` is processor time, which does not pass while other
    processes run.
    """

    constraint_bytes: int = 256 * 1024
    ebnf_bytes: int = 256 * 1024
    compiled_bytes: int = 256 * 1024**2
    memory_bytes: int = 2 * 1024**3
    cpu_s: float = 5.0
