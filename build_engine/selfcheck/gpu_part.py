"""The tiny Mixtral on GPUs: built, served through the container's entry point, and loaded with requests."""

from contextlib import ExitStack
from functools import partial
from pathlib import Path

from build_engine.model_config import read_serving_config
from build_engine.tensorrt_llm.smoke_test.model import Model

from .load import KV_TOKENS, SUBJECTS, little_cache, load_checks
from .report import Report
from .server import Server, serve
from .tiny_build import MODEL, STEPS, BuildSteps, TinyBuild

_SERVE, _LITTLE_CACHE = "serve", "little KV cache"


def subjects(tp_size: int) -> list[str]:
    """Of all checks with so many GPUs."""
    return [_named(subject, tp_size) for subject in (*STEPS, _SERVE, *SUBJECTS, _LITTLE_CACHE)]


def _named(subject: str, tp_size: int) -> str:
    return f"{tp_size} GPU{'s' * (tp_size > 1)}: {subject}"


def check_on_gpus(report: Report, tiny: TinyBuild, entrypoint: Path) -> None:
    """Add a line for each of `subjects` to the report."""

    def name(subject: str) -> str:
        return _named(subject, tiny.tp_size)

    steps = BuildSteps(tiny)
    cost = report.measure(name("build"), steps.run)
    costs = {STEPS[-1]: cost}
    built = [report.check_measured(name(step), partial(steps.outcome, step), costs.get(step)) for step in STEPS]
    if not all(built):
        report.not_known(map(name, (_SERVE, *SUBJECTS, _LITTLE_CACHE)), "the tiny engine was not built")
        return
    if not entrypoint.is_file():
        report.not_known(map(name, (_SERVE, *SUBJECTS, _LITTLE_CACHE)), f"no {entrypoint.name} here")
        return
    with ExitStack() as stack:
        servers: list[Server] = []
        log = tiny.directory / "serve.log"
        if report.check(name(_SERVE), lambda: _start(stack, servers, entrypoint, tiny.repository, log)):
            for subject, check in load_checks(servers[0], _model(tiny, tiny.repository, servers[0])):
                report.check(name(subject), check)
        else:
            report.not_known(map(name, SUBJECTS), "Triton does not serve the tiny engine")
    report.check(name(_LITTLE_CACHE), lambda: _little_cache(tiny, entrypoint))


def _start(stack: ExitStack, servers: list[Server], entrypoint: Path, repository: Path, log: Path) -> str:
    servers.append(stack.enter_context(serve(entrypoint, repository, log)))
    return "ready"


def _little_cache(tiny: TinyBuild, entrypoint: Path) -> str:
    repository = tiny.directory / "little_cache"
    tiny.write_repository(repository, KV_TOKENS)
    # The entry point wants an engine in the repository; the config names the same one.
    (repository / MODEL / "1" / "engine").symlink_to(tiny.engine_dir)
    with serve(entrypoint, repository, tiny.directory / "little_cache.log") as server:
        return little_cache(server, _model(tiny, repository, server))


def _model(tiny: TinyBuild, repository: Path, server: Server) -> Model:
    return Model.of(read_serving_config(repository / MODEL / "config.pbtxt"), tiny.checkpoint, server.client)
