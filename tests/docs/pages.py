"""The repository's Markdown pages, and what they name: links, headings, tables, commands."""

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]

PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("docker/**/*.md"), *ROOT.glob("deploy/**/*.md")]
)

_FENCE = re.compile(r"^```[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`([^`]+)`")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
_NOT_IN_ANCHORS = re.compile(r"[^\w\- ]")


def name(page: Path) -> str:
    """For test ids."""
    return str(page.relative_to(ROOT))


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return _FENCE.sub("", page.read_text())


def snippets(text: str) -> Iterator[str]:
    """What is set as code: each line of a block, and each span."""
    for block in _FENCE.findall(text):
        yield from block.splitlines()
    for span in _CODE.findall(_FENCE.sub("", text)):
        yield " ".join(span.split())


def links(page: Path) -> list[str]:
    """Targets of a page's links that lead into the repository."""
    return [target for target in _LINK.findall(prose(page)) if "://" not in target]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = _HEADING.findall(prose(page))
    return {_NOT_IN_ANCHORS.sub("", heading.strip().lower()).replace(" ", "-") for heading in headings}


def table_rows(page: Path, heading: str) -> list[list[str]]:
    """The cells of the tables under a heading, sections below it included, without their heads."""
    level = heading.partition(" ")[0]
    _, found, section = page.read_text().partition(f"\n{heading}\n")
    assert found, f"{name(page)} has no {heading!r}"
    section = re.split(rf"^#{{1,{len(level)}}} ", section, flags=re.MULTILINE)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    heads = {number - 1 for number, line in enumerate(lines) if line.startswith("|---")}
    return [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for number, line in enumerate(lines)
        if number not in heads and number - 1 not in heads
    ]
