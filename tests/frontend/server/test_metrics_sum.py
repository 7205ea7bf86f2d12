"""The counts of several processes as one text: prometheus-client itself counts the same things in one registry."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from frontend.server.metrics import Metrics
from frontend.server.metrics_sum import sum_of
from frontend.server.metrics_text import counts_text

Counted = Sequence[tuple[str, int]]
"""The label and the value of each observation."""


def text_of(counted: Counted) -> bytes:
    """What a process says that has counted these."""
    registry = CollectorRegistry()
    errors = Counter("errors", "By status.", ("status",), registry=registry)
    seconds = Histogram("seconds", "Of all.", buckets=(1, 10, 100), registry=registry)
    open_now = Gauge("open", "Now.", registry=registry)
    for label, value in counted:
        errors.labels(status=label).inc(value)
        seconds.observe(value)
        open_now.inc(value)
    return generate_latest(registry)


def values(text: bytes) -> dict[tuple[str, str], float]:
    samples = [sample for family in text_string_to_metric_families(text.decode()) for sample in family.samples]
    return {(sample.name, str(sorted(sample.labels.items()))): sample.value for sample in samples}


counts = st.lists(st.tuples(st.sampled_from(["400", "429", 'a "b" {c}']), st.integers(0, 200)), max_size=8)


@given(st.lists(counts, min_size=1, max_size=4))
def test_several_processes_have_counted_what_one_would_have(parts: list[Counted]) -> None:
    together = text_of([observation for part in parts for observation in part])
    assert values(sum_of(list(map(text_of, parts)))) == values(together)


@given(counts, counts)
def test_what_an_ended_process_has_counted_stays_and_its_gauges_do_not(running: Counted, ended: Counted) -> None:
    found = values(sum_of([text_of(running)], [text_of(ended)]))
    assert found.pop(("open", "[]")) == sum(value for _, value in running)
    together = values(text_of([*running, *ended]))
    del together["open", "[]"]
    assert found == together


def test_the_sum_of_sums_is_the_sum() -> None:
    first, second, third = (text_of([("400", value)]) for value in (1, 20, 300))
    assert sum_of([sum_of([first, second]), third]) == sum_of([first, second, third])


def test_versions_and_the_start_of_the_server_are_not_added_up() -> None:
    texts = [counts_text(Metrics("m", 4096, build={"version": "1.2.3"})) for _ in range(3)]
    found = values(sum_of(texts))
    assert found["frontend_build_info", "[('version', '1.2.3')]"] == 1
    start = ("process_start_time_seconds", "[]")
    assert found[start] == min(values(text)[start] for text in texts)
    open_files = ("process_open_fds", "[]")
    assert found[open_files] == sum(values(text)[open_files] for text in texts)


def test_no_process_has_counted_nothing() -> None:
    assert sum_of([], [b""]).strip() == b""
