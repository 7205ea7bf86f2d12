"""What can be wrong with a checkpoint or a build.

BuildError
├── CheckpointError        the checkpoint cannot be used as it is
├── RepositoryError        the model repository cannot take the engine
├── HostError              this host cannot build the engine
├── ConversionError        the converted checkpoint is not the source checkpoint
├── EngineError            the engine is not what was asked for, or does not generate
├── ToolFailed             a program that the build runs ended badly
└── BuildInterrupted       stopped by the user

A message is one line: the file or tensor, what was found, what is accepted. `__main__` prints it and exits with 2.
`ToolFailed` alone has more: the tool's last lines.
"""


class BuildError(Exception):
    """A build cannot go on; nothing was published."""


class CheckpointError(BuildError):
    """The checkpoint is missing something, damaged, or of a kind that is not built."""


class RepositoryError(BuildError):
    """The model repository is not readable, not writable, or full."""


class HostError(BuildError):
    """A GPU, a driver, a program or a version that the build needs is not here, or is another one."""


class ConversionError(BuildError):
    """NVIDIA's converter wrote something else than the source checkpoint: the tensor, and what is wrong with it."""


class EngineError(BuildError):
    """The engine was built for something else than asked, or what it generates is not plausible."""


class ToolFailed(BuildError):
    """A program ended with an error: what is known about that failure, what to try, and its last lines."""


class BuildInterrupted(BuildError):
    """SIGINT or SIGTERM came while building."""
