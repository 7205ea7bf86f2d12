"""python -m frontend.first_run check|install, for the Makefile. Exit status 0, or 1 with what is wrong and its remedy.

Written for Python 3.6 on; the other modules are imported when the Python is known to be an accepted one.
"""

import sys

from . import interpreter


def main() -> int:
    """Check the interpreter, and go on to what was asked for."""
    problems = list(interpreter.problems())
    if problems:
        sys.stderr.writelines(f"first_run: {problem}\n" for problem in problems)
        return 1
    from .commands import run

    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
