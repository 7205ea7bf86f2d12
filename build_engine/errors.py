"""What can stop a build.

BuildError                 refused
├── CheckpointError        the checkpoint cannot be used as it is
└── RepositoryError        the model repository cannot take the engine
BuildInterrupted           stopped from outside

A message is one line: the file or tensor, what was found, what is accepted. `__main__` prints it and exits with 2.
"""


class BuildError(Exception):
    """A build cannot go on; nothing was published."""


class CheckpointError(BuildError):
    """The checkpoint is missing something, damaged, or of a kind that is not built."""


class RepositoryError(BuildError):
    """The model repository is not readable, not writable, in use, or full."""


class BuildInterrupted(BaseException):
    """SIGINT or SIGTERM came. Not an Exception: a library that catches those would swallow it, and the build go on."""
