"""Whether the ports of `make run` are free."""

from collections.abc import Iterator, Sequence

from frontend.errors import StartupError
from frontend.local.options import parse
from frontend.local.ports import LOOPBACK, check_free

_OTHERS = 100
"""How many ports above a busy one are tried, to name a free one."""


def problems(options: Sequence[str]) -> Iterator[str]:
    """What is wrong with those of the options of `python -m frontend.local`. Exits on a wrong option."""
    arguments, _ = parse([option for option in options if option not in ("-h", "--help")])
    chosen = [("--port", arguments.host, arguments.port)]
    chosen += [("--triton-port", LOOPBACK, arguments.triton_port), ("--metrics-port", LOOPBACK, arguments.metrics_port)]
    for option, host, port in chosen:
        try:
            check_free(host, port, option)
        except StartupError as error:
            free = _free_above(host, port) if str(error).endswith(option) else None
            yield f"port: {error}" + (f': make run OPTIONS="{option} {free}"' if free else "")


def _free_above(host: str, port: int) -> int | None:
    for other in range(port + 1, min(port + _OTHERS, 65536)):
        try:
            check_free(host, other, "")
        except StartupError:
            continue
        return other
    return None
