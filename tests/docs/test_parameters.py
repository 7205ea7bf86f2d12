"""docs/parameters.md has the table that the code gives."""

from .pages import ROOT, table_rows
from .parameter_table import BEGIN, END, PAGE, page_with, table


def test_the_table_is_what_the_code_does() -> None:
    """To renew it: make table."""
    page = PAGE.read_text()
    assert page == page_with(page, table())


def test_only_the_table_is_written() -> None:
    assert page_with(f"before\n{BEGIN}old\n{END}after\n", "new\n") == f"before\n{BEGIN}new\n{END}after\n"


def test_every_parameter_has_one_fate_at_each_endpoint() -> None:
    rows = [row for row in table_rows(ROOT / "docs" / "parameters.md", "## Parameters") if row[0].startswith("`")]
    fates = [
        (row[0], place)
        for row in rows
        for place in row[1].replace("all", "chat, completions, responses, messages").split(", ")
    ]
    assert len(fates) == len(set(fates))
