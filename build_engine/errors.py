"""What can be wrong with a checkpoint or a build.

BuildError
├── CheckpointError        the checkpoint cannot be used as it is
├── RepositoryError        the model repository cannot take the engine
└── BuildInterrupted       stopped by the user

A message is one line: the file or tensor, what was found, what is accepted. `__main__` prints it and exits with 2.
"""


class BuildError(Exception):
    """A build cannot go on; nothing was published."""


class CheckpointError(BuildError):
    """The checkpoint is missing something, damaged, or of a kind that is not built."""


class RepositoryError(BuildError):
    """The model repository is not readable, not writable, or full."""


class BuildInterrupted(BuildError):
    """SIGINT or SIGTERM came while building."""
