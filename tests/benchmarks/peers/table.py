"""What was measured, as tables in Markdown. Figures are medians of all rounds; ratios compare turns of one round."""

from collections.abc import Mapping, Sequence
from statistics import median

from .rounds import Measured, Round


def print_loads(servers: Mapping[str, Measured], loads: Sequence[str]) -> None:
    """Speed and times under each load. The ratio is of this server's tokens/s to those of the first."""
    print(
        "\n| load | server | tokens/s | ratio | first token p50 | p99 | per token p50 |\n|---|---|---|---|---|---|---|"
    )
    for load in loads:
        first = next(iter(servers.values())).rounds[load]
        for name, server in servers.items():
            rounds = server.rounds[load]
            speeds = [each.tokens_per_s for each in rounds]
            ratio = median(own.tokens_per_s / other.tokens_per_s for own, other in zip(rounds, first, strict=True))
            waits = [stream.first_token_s for each in rounds for stream in each.streams]
            per_token = median(stream.per_token_s for each in rounds for stream in each.streams)
            print(
                f"| {load} | {name} | {median(speeds):.0f} ({min(speeds):.0f} to {max(speeds):.0f}) | {ratio:.2f} "
                f"| {median(waits):.2f} s | {_p99(waits):.2f} s | {1000 * per_token:.0f} ms |"
            )


def print_gaps(servers: Mapping[str, Measured], load: str) -> None:
    """The longest time without a token, of a stream that another request's prompt arrives beside."""
    print(f"\n| {load} | longest gap | lowest | highest |\n|---|---|---|---|")
    for name, server in servers.items():
        gaps = [stream.longest_gap_s for each in server.rounds[load] for stream in each.streams]
        print(f"| {name} | {median(gaps):.2f} s | {min(gaps):.2f} s | {max(gaps):.2f} s |")


def print_costs(servers: Mapping[str, Measured], load: str) -> None:
    """What else a server takes. CPU of its HTTP process for each token is that under `load`."""
    print("\n| server | start | peak memory | idle | CPU of the HTTP process for each token |\n|---|---|---|---|---|")
    for name, server in servers.items():
        idle = f"{100 * server.idle_cores:.1f} % of a core"
        print(
            f"| {name} | {server.running.start_s:.0f} s | {server.peak_mb:,.0f} MB | {idle} "
            f"| {_api_cost(server.rounds[load])} |"
        )


def _api_cost(rounds: Sequence[Round]) -> str:
    costs = [each.api_us for each in rounds if each.api_us is not None]
    return f"{median(costs):.0f} us" if costs else "in the same process"


def _p99(values: Sequence[float]) -> float:
    """The value that one in a hundred exceeds; the highest of few."""
    return sorted(values)[min(len(values) - 1, len(values) * 99 // 100)]
