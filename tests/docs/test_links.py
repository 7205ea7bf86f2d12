"""Every link of a page leads to a file of the repository, and to a heading of it."""

from pathlib import Path

import pytest

from .pages import PAGES, ROOT, anchors, links, name

DOCS = sorted((ROOT / "docs").glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_to_a_file_and_a_heading(page: Path) -> None:
    for link in links(page):
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.is_relative_to(ROOT), link
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", DOCS, ids=name)
def test_the_readme_links_every_page_of_docs(page: Path) -> None:
    assert name(page) in links(ROOT / "README.md")
