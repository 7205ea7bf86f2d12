"""All checks, in order, and their report."""

import shutil
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from build_engine.errors import RepositoryError
from build_engine.model_config import read_serving_config
from build_engine.tensorrt_llm.commands import Toolchain
from build_engine.tensorrt_llm.host import HostFacts, gpu_memory_mib, probe_host
from build_engine.tensorrt_llm.preflight import check_inputs
from build_engine.tensorrt_llm.subprocess_log import show

from .cost import Meter
from .gpu_part import check_on_gpus, subjects
from .installed import installed_checks
from .once import has_passed, remember, stamp_of
from .report import NotKnown, Report
from .tiny_build import MODEL, TinyBuild
from .tiny_checkpoint import make_tiny_checkpoint
from .weight_order import weight_order_checks

WORK_DIR = ".engine.selfcheck"
"""The default, beside the engine."""
REPORT = "report.txt"
_TP_SIZES = (1, 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfCheck:
    """What to check, and where to write: everything below `work_dir`. `image` is the id of the container's image."""

    model_repository: Path
    work_dir: Path
    tools: Toolchain
    entrypoint: Path
    image: str = ""


def run_selfcheck(selfcheck: SelfCheck, *, once: bool = False) -> Report | None:
    """Make all checks and write the report. With `once`, None if this image has passed on these GPUs before.

    Raises RepositoryError if `work_dir` cannot be made.
    """
    work_dir = selfcheck.work_dir.absolute()
    try:
        work_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RepositoryError(f"{work_dir}: cannot be made ({error.strerror}); accepted: a writable place") from error
    facts = probe_host(selfcheck.tools, work_dir)
    stamp = stamp_of(selfcheck.image, facts.gpus, facts.driver)
    if once and has_passed(work_dir, stamp):
        return None
    remember(work_dir, None)
    report = _make_checks(selfcheck, work_dir, facts)
    (work_dir / REPORT).write_text(report.text())
    if not report.failures:
        if facts.gpus:
            remember(work_dir, stamp)
        shutil.rmtree(_scratch(work_dir), ignore_errors=True)
    return report


def _scratch(work_dir: Path) -> Path:
    """Kept after a failure, for inspection."""
    return work_dir / "tiny"


def _make_checks(selfcheck: SelfCheck, work_dir: Path, facts: HostFacts) -> Report:
    scratch = _scratch(work_dir)
    shutil.rmtree(scratch, ignore_errors=True)
    report = Report(Meter(partial(gpu_memory_mib, selfcheck.tools) if facts.gpus else None), show, _places(selfcheck))
    for subject, check in installed_checks(selfcheck.tools, facts, selfcheck.entrypoint):
        report.check(subject, check)
    for subject, check in weight_order_checks(selfcheck.tools):
        report.check(subject, check)
    builds: list[TinyBuild] = []
    report.check("tiny checkpoint", lambda: _make_tiny(selfcheck, scratch, builds))
    for tp_size in _TP_SIZES:
        if reason := _why_not(facts, selfcheck.tools, tp_size, made=bool(builds)):
            report.not_known(subjects(tp_size), reason)
        else:
            check_on_gpus(
                report, replace(builds[0], tp_size=tp_size, directory=scratch / f"tp{tp_size}"), selfcheck.entrypoint
            )
    return report


def _places(selfcheck: SelfCheck) -> dict[str, Path]:
    return {
        "work": selfcheck.work_dir.absolute(),
        "repository": selfcheck.model_repository.absolute(),
        "home": Path.home(),
    }


def _make_tiny(selfcheck: SelfCheck, scratch: Path, builds: list[TinyBuild]) -> str:
    """Write the checkpoint for the limits of the product's config.pbtxt, and check that they suit each other."""
    config_pbtxt = selfcheck.model_repository / MODEL / "config.pbtxt"
    if not config_pbtxt.is_file():
        raise NotKnown(f"the model repository has no config.pbtxt of {MODEL}")
    config = read_serving_config(config_pbtxt)
    checkpoint = make_tiny_checkpoint(scratch / "checkpoint", config.limits.max_seq_len)
    build = TinyBuild(
        checkpoint=checkpoint, config=config, tools=selfcheck.tools, tp_size=1, directory=scratch / "inputs"
    )
    check_inputs(build.write_repository(build.repository), checkpoint)
    builds.append(build)
    return f"{checkpoint.size_bytes / 2**20:.0f} MiB; opens, and suits the limits of config.pbtxt"


def _why_not(facts: HostFacts, tools: Toolchain, tp_size: int, *, made: bool) -> str | None:
    """Why the checks with so many GPUs cannot be made, or None."""
    if not facts.gpus:
        return "nvidia-smi shows no GPU"
    if len(facts.gpus) < tp_size:
        return f"nvidia-smi shows {len(facts.gpus)} GPU; this takes {tp_size}"
    if facts.tensorrt_llm is None or not tools.converter.is_file():
        return "TensorRT-LLM is not installed here; run in the image: make images"
    return None if made else "there is no tiny checkpoint"
