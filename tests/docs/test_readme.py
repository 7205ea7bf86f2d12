"""The README shows every folder, and no other."""

import re

from .pages import ROOT

README = (ROOT / "README.md").read_text()


def test_where_things_are_has_every_folder() -> None:
    block = README.split("## Where things are")[1].split("```")[1]
    named = set(re.findall(r"^([a-z_]+)/ ", block, re.MULTILINE))
    folders = {path.name for path in ROOT.iterdir() if path.is_dir() and re.fullmatch("[a-z_]+", path.name)}
    ignored = {line.strip("/") for line in (ROOT / ".gitignore").read_text().splitlines()}
    assert named == folders - ignored
