#!/usr/bin/env python3
"""The double of mpirun, with its --help."""

import sys

from tests.doubles import mpirun

HELP = """   -allow-run-as-root|--allow-run-as-root
   --bind-to <arg0>      Policy for binding processes.
   -n|--n <arg0>         Number of processes to run
"""

if __name__ == "__main__":
    if "--help" in sys.argv:
        sys.stdout.write(HELP)
        sys.exit(0)
    sys.exit(mpirun.main())
