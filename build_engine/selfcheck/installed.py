"""What is installed: versions, the files of TensorRT-LLM that this product's arithmetic rests on, and options."""

import hashlib
import re
from collections.abc import Iterator, Mapping
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import python_version

from build_engine.errors import HostError
from build_engine.model_config import Limits
from build_engine.tensorrt_llm.commands import VERSION, Toolchain, build_command, convert_command, serve_command
from build_engine.tensorrt_llm.commands import flags_of as flags
from build_engine.tensorrt_llm.gpus import refusal
from build_engine.tensorrt_llm.host import HostFacts

from .programs import output_of, run_script
from .report import Check, NotKnown

DISTRIBUTION = "mixtral-triton"
PACKAGES = ("tensorrt_llm", "tensorrt", "torch", "transformers", "numpy")
"""Distributions in NVIDIA's Python whose versions are reported."""
FILES = (
    "layers/moe.py",
    "layers/attention.py",
    "quantization/functional.py",
    "plugin/plugin.py",
    "builder.py",
)
"""Files of the tensorrt_llm package that name, split, order or build the weights: `layout` and `verify` follow them."""
KNOWN_DIGESTS: Mapping[str, str] = {}
"""File -> sha256 in release 1.2.1, once it has been read from the image. convert_checkpoint.py stands for itself."""

_PROBE = """
import hashlib, importlib.metadata, importlib.util, json, pathlib, sys
packages, files = json.loads(sys.argv[1])
def version(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
def digest(file):
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None
spec = importlib.util.find_spec("tensorrt_llm")
root = pathlib.Path(spec.origin).parent if spec and spec.origin else None
print(json.dumps({
    "python": sys.version.split()[0],
    "versions": {name: version(name) for name in packages},
    "digests": {name: digest(root / name) for name in files} if root else {},
}))
"""
"""Finds the package without importing it."""
_NO_TENSORRT_LLM = "tensorrt_llm is not installed here; run in the image: make images"
_MPIRUN_OPTIONS = ["--allow-run-as-root", "--bind-to", "-n"]
_MPIRUN_HELP = ["--allow-run-as-root", "--help", "full"]
"""Root gets no help otherwise, and without `full` it lists some options only. Source: Open MPI 4.1.4, tried."""
_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")


def installed_checks(tools: Toolchain, facts: HostFacts, entrypoint: Path) -> Iterator[tuple[str, Check]]:
    """Subjects and checks, none of which takes GPU memory."""
    yield "versions: build step", _own_versions
    yield "versions: NVIDIA's Python", partial(_nvidia_versions, tools)
    yield "versions: Triton", partial(_triton_version, tools)
    yield "GPUs", partial(_gpus, facts)
    for file in FILES:
        yield f"sha256: {file}", partial(_package_digest, tools, file)
    yield f"sha256: {tools.converter.name}", partial(_file_digest, tools.converter)
    yield "options: converter", partial(_converter_options, tools)
    yield "options: trtllm-build", partial(_builder_options, tools)
    yield "options: tritonserver", partial(_server_options, tools, entrypoint)
    yield "options: mpirun", partial(_options, [tools.mpirun, *_MPIRUN_HELP], _MPIRUN_OPTIONS)


def _own_versions() -> str:
    try:
        own = version(DISTRIBUTION)
    except PackageNotFoundError:
        own = "not installed as a package"
    return f"{DISTRIBUTION} {own}, Python {python_version()}, numpy {version('numpy')}"


def _probe(tools: Toolchain) -> dict[str, dict[str, str | None]]:
    found: dict[str, dict[str, str | None]] = run_script(tools.python, _PROBE, [PACKAGES, FILES])
    if found["versions"]["tensorrt_llm"] is None:
        raise NotKnown(_NO_TENSORRT_LLM)
    return found


def _nvidia_versions(tools: Toolchain) -> str:
    found = _probe(tools)
    listed = ", ".join(f"{name} {number or 'none'}" for name, number in found["versions"].items())
    if (release := found["versions"]["tensorrt_llm"]) != VERSION:
        raise HostError(f"tensorrt_llm {release}; accepted: {VERSION}")
    return f"Python {found['python']}, {listed}"


def _triton_version(tools: Toolchain) -> str:
    """NVIDIA's image has it in a file beside the folder of backends."""
    if not tools.backend.is_dir():
        raise NotKnown(f"no {tools.backend.name} backend here")
    file = tools.backend.parents[1] / "TRITON_VERSION"
    if not file.is_file():
        raise NotKnown(f"the backend is here, but no {file.name}")
    return file.read_text().strip()


def _gpus(facts: HostFacts) -> str:
    if not facts.gpus:
        raise NotKnown("nvidia-smi shows none")
    if reasons := [reason for gpu in facts.gpus if (reason := refusal(gpu.sm))]:
        raise HostError(reasons[0])
    cuda = ".".join(map(str, facts.cuda)) if facts.cuda else "unknown"
    gpus = ", ".join(f"{gpu.name} (SM {gpu.sm}, {gpu.free_mib} of {gpu.total_mib} MiB free)" for gpu in facts.gpus)
    return f"{gpus}; driver {facts.driver}, CUDA {cuda}"


def _package_digest(tools: Toolchain, file: str) -> str:
    digest = _probe(tools)["digests"].get(file)
    if digest is None:
        raise HostError("missing in tensorrt_llm")
    return _compared(file, digest)


def _file_digest(file: Path) -> str:
    if not file.is_file():
        raise NotKnown(f"no {file.name} here")
    return _compared(file.name, hashlib.sha256(file.read_bytes()).hexdigest())


def _compared(file: str, digest: str) -> str:
    known = KNOWN_DIGESTS.get(file)
    if known is None:
        raise NotKnown(f"{digest}; that of release {VERSION} is not on record")
    if digest != known:
        raise HostError(f"{digest}; accepted: {known}, that of release {VERSION}")
    return digest


_ANYWHERE = Path()
_LIMITS = Limits(max_batch_size=1, max_seq_len=1, max_num_tokens=1)


def _converter_options(tools: Toolchain) -> str:
    if not tools.converter.is_file():
        raise NotKnown(f"no {tools.converter.name} here")
    command = convert_command(tools, _ANYWHERE, _ANYWHERE, 1)
    return _options([tools.python, str(tools.converter), "--help"], flags(command))


def _builder_options(tools: Toolchain) -> str:
    command = build_command(tools, _ANYWHERE, _ANYWHERE, _ANYWHERE, _LIMITS, 1)
    return _options([tools.trtllm_build, "--help"], flags(command))


def _server_options(tools: Toolchain, entrypoint: Path) -> str:
    """Those of the build's smoke test, and those of the container's entry point."""
    used = [option.partition("=")[0] for option in flags(serve_command(tools, _ANYWHERE, 1, 1, 1))]
    if entrypoint.is_file():
        used += [option for option in _OPTION.findall(entrypoint.read_text()) if option not in _MPIRUN_OPTIONS]
    return _options([tools.tritonserver, "--help"], used)


def _options(command: list[str], used: list[str]) -> str:
    text = output_of(command)
    if not text.strip():
        raise HostError("--help gives no answer")
    known = set(re.findall(r"--?[A-Za-z][\w-]*", text))
    if missing := sorted(set(used) - known):
        raise HostError(f"not known: {', '.join(missing)}")
    return f"all {len(set(used))} that are used"
