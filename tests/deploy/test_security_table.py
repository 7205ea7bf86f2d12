"""docs/scale.md compares what compose, Kubernetes and the unit confine; the table is that of the files."""

from tests.deploy.security_table import PAGE, of_page, table


def test_the_table_is_that_of_the_files() -> None:
    assert of_page(PAGE.read_text()) == table(), "python -m tests.deploy.security_table writes it"
