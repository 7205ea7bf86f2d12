"""A secret for a program that takes it as an argument only, kept out of /proc/PID/cmdline, which every user can read.

The secret is in the program's environment, which its own user alone can read (proc(5)). On the command line stands a
placeholder. When the kernel has loaded the program and before it runs (PTRACE_TRACEME in ptrace(2)), its pointer to the
placeholder is set to the variable's value. Linux on 64-bit processors, in their byte order.
"""

import ctypes
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

_PTRACE_TRACEME, _PTRACE_DETACH = 0, 17
"""Of <sys/ptrace.h>."""

_POINTER_BYTES = 8
_START_OF_STACK = 28
"""The field of /proc/PID/stat, counted from 1: where the stack of a program begins when it starts."""

_PLACEHOLDER, _VARIABLE = "(hidden)", "HIDDEN_ARGUMENT"

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_LIBC.ptrace.restype = ctypes.c_long


def hide(secret: str, command: Sequence[str], environment: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """The command and the environment to start, for a command of which one argument is `secret`. Then `insert` it."""
    shown = [_PLACEHOLDER if argument == secret else argument for argument in command]
    return shown, {**environment, _VARIABLE: secret}


def stop_when_loaded() -> None:
    """Run in the child before exec, and `insert` in its parent after it. Raises OSError where ptrace is not allowed."""
    if _LIBC.ptrace(_PTRACE_TRACEME, 0, None, None):
        raise OSError(ctypes.get_errno(), "ptrace is not allowed here")


def insert(pid: int) -> None:
    """Wait until the program is loaded, give it the argument, and let it run. Raises OSError."""
    _, status = os.waitpid(pid, os.WUNTRACED)
    if not os.WIFSTOPPED(status):
        raise OSError(f"process {pid} ended before it was loaded")
    stack = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[_START_OF_STACK - 3])
    with Path(f"/proc/{pid}/mem").open("r+b", buffering=0) as memory:
        _redirect(memory, stack)
    if _LIBC.ptrace(_PTRACE_DETACH, pid, None, None):
        raise OSError(ctypes.get_errno(), f"process {pid} cannot be released")


def _redirect(memory: BinaryIO, stack: int) -> None:
    """The stack has the number of arguments, pointers to them, 0, and pointers to the environment (System V ABI)."""
    arguments = stack + _POINTER_BYTES
    environment = arguments + _POINTER_BYTES * (_read_word(memory, stack) + 1)
    name = f"{_VARIABLE}=".encode()
    (slot,) = [slot for slot, text in _strings(memory, arguments) if text == _PLACEHOLDER.encode()]
    (variable,) = [slot for slot, text in _strings(memory, environment) if text.startswith(name)]
    value = _read_word(memory, variable) + len(name)
    memory.seek(slot)
    memory.write(value.to_bytes(_POINTER_BYTES, sys.byteorder))


def _strings(memory: BinaryIO, slot: int) -> Iterator[tuple[int, bytes]]:
    """Each pointer's address and the string that it points to, up to the null pointer."""
    while pointer := _read_word(memory, slot):
        yield slot, _read_string(memory, pointer)
        slot += _POINTER_BYTES


def _read_word(memory: BinaryIO, address: int) -> int:
    memory.seek(address)
    return int.from_bytes(memory.read(_POINTER_BYTES), sys.byteorder)


def _read_string(memory: BinaryIO, address: int) -> bytes:
    """Piece by piece: behind the last string there may be no memory to read."""
    memory.seek(address)
    text = b""
    while piece := memory.read(256):
        text += piece
        if b"\0" in piece:
            break
    return text.partition(b"\0")[0]
