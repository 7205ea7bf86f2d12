"""The two texts of this package, one to calibrate on and one to measure on. They share no passage.

Literature is in the public domain. Chats, code and articles were written for this package; most of those in the
calibration text, and none in the held-out text, by the source model.
"""

from importlib.resources import files

SEPARATOR = "\n=====\n"


def read_documents(name: str) -> list[str]:
    """The passages of `calibration.txt` or `heldout.txt`. Chats are written out in ChatML."""
    return files("build_engine.demo").joinpath(name).read_text(encoding="utf-8").strip().split(SEPARATOR)
