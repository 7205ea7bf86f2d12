"""`python -m frontend`: read the settings, and serve until a signal, in this process or in several workers.

It does not start without its tokenizer or its engine: one line on stderr says what is missing.
"""

import os
import sys

from .event_loop import run
from .settings import Settings


def main() -> int:
    """The exit code: 0 after SIGTERM or SIGINT, 1 with one line on stderr if the start failed."""
    settings = Settings.from_args(sys.argv[1:], os.environ)
    if settings.workers > 1:
        from frontend.workers.processes import serve_with_workers

        return run(settings, serve_with_workers(settings))
    # What only a process that serves needs: 70 MB, and a second.
    from frontend.server.shared import Alone

    from .serve import serve

    return run(settings, serve(settings, Alone(settings)))


if __name__ == "__main__":
    sys.exit(main())
