"""What can stop a build.

BuildError                 refused
├── CheckpointError        the checkpoint cannot be used as it is
├── RepositoryError        the model repository cannot take the engine
├── HostError              this host cannot build the engine
├── ConversionError        the converted checkpoint is not the source checkpoint
├── EngineError            the engine is not what was asked for, or does not generate
└── ToolFailed             a program that the build runs failed
BuildInterrupted           stopped from outside

A message is one line: the file or tensor, what was found, what is accepted. `__main__` prints it and exits with 2.
"""

from collections.abc import Sequence


class BuildError(Exception):
    """A build cannot go on; nothing was published."""


class CheckpointError(BuildError):
    """The checkpoint is missing something, damaged, or of a kind that is not built."""


class RepositoryError(BuildError):
    """The model repository is not readable, not writable, in use, or full; or the place of a demo checkpoint is."""


class HostError(BuildError):
    """A GPU, a driver or a program that the build needs is missing, or is another version."""


class ConversionError(BuildError):
    """NVIDIA's converter did not write what the source checkpoint holds: the tensor, and what is wrong with it."""


class EngineError(BuildError):
    """The engine was not built for what was asked, or what it generates is not plausible."""


class ToolFailed(BuildError):
    """A program failed: what is known about that failure, what to try, and in `last_lines` the end of its output."""

    def __init__(self, message: str, last_lines: Sequence[str]) -> None:
        super().__init__(message)
        self.last_lines = last_lines


class BuildInterrupted(BaseException):
    """SIGINT or SIGTERM was received. Not an Exception: a library that catches those would swallow it."""
