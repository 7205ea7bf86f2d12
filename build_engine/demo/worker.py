"""A process that upcycles layers: a pickled LayerJob on stdin, its MixtralLayer on stdout, until stdin ends."""

import pickle
import sys

from .upcycle import upcycle_layer


def main() -> None:
    """Ends with its parent, which holds the other end of stdin."""
    while True:
        try:
            job = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        pickle.dump(upcycle_layer(job), sys.stdout.buffer)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
