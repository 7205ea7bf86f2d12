"""The two texts of this package: one to calibrate on, one to measure on, which share no passage.

Literature is in the public domain. Chats, code and articles were written for this package: those of the calibration
text mostly by the source model itself, those of the held-out text not.
"""

from importlib.resources import files

SEPARATOR = "\n=====\n"


def read_documents(name: str) -> list[str]:
    """The passages of `calibration.txt` or `heldout.txt`. Chats are written out in ChatML."""
    return files("build_engine.demo").joinpath(name).read_text(encoding="utf-8").strip().split(SEPARATOR)
