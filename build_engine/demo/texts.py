"""The two texts of this package: one to calibrate on, one to measure on, which share no passage.

Prose is in the public domain; chats and code were written for this package, part of the calibration text by the source model.
"""

from importlib.resources import files

SEPARATOR = "\n=====\n"


def read_documents(name: str) -> list[str]:
    """The passages of `calibration.txt` or `heldout.txt`. Chats are written out in ChatML."""
    return files("build_engine.demo").joinpath(name).read_text(encoding="utf-8").strip().split(SEPARATOR)
