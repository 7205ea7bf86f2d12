"""The dependencies of an installation, read from the metadata of the installed distributions."""

import re
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]


def closure(name: str, extra: str) -> set[str]:
    """Every distribution that `name[extra]` needs on this platform, by its normalised name."""
    found: set[str] = set()
    pending = [(name, extra)]
    while pending:
        current, wanted = pending.pop()
        for text in requires(current) or []:
            requirement = Requirement(text)
            if requirement.marker is not None and not requirement.marker.evaluate({"extra": wanted}):
                continue
            needed = re.sub(r"[-_.]+", "-", requirement.name).lower()
            if needed not in found:
                found.add(needed)
                pending += [(requirement.name, more) for more in (requirement.extras or {""})]
    return found


def test_the_frontend_needs_neither_torch_nor_cuda_nor_grpc() -> None:
    needed = closure("mixtral-triton", "frontend")
    assert {"fastapi", "uvicorn", "tritonclient", "transformers", "tokenizers"} <= needed
    heavy = ("torch", "cuda", "nvidia", "grpc", "protobuf", "openvino", "tensorrt")
    assert not [name for name in needed if any(part in name for part in heavy)]


def test_every_dependency_is_pinned() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    pinned = {re.sub(r"[-_.]+", "-", line.split("==")[0]).lower() for line in lines if "==" in line}
    assert len(pinned) == len(lines)
    for extra in ("frontend", "traces", "build", "cpu", "demo", "chat", "test"):
        assert closure("mixtral-triton", extra) <= pinned
