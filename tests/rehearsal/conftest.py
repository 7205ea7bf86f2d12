"""One rehearsal: a daemon, a copy of the checkout, images that stand for those of registries, and a tiny Mixtral."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rehearsal.api import Api
from tests.rehearsal.base_image import make_base_image
from tests.rehearsal.checkout import PROJECT, ROOT, Checkout, copy_checkout, say
from tests.rehearsal.containers import Containers
from tests.rehearsal.daemon import NoDaemon, docker_daemon
from tests.tiny_mixtral import TINY, tiny_tensors, write_checkpoint

STATE = ROOT / ".cache" / "rehearsal"
"""The copy, the log, and the images of a daemon that was started for the rehearsal."""
KEPT = "6gb"
"""Layers that are kept for the next rehearsal: about twice what one makes."""
MODEL = {**TINY, "intermediate_size": 256, "max_position_embeddings": 32768}
"""Two GPUs can share it, and it has the context length of the GPU model's config.pbtxt."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def checkout() -> Iterator[Checkout]:
    """A copy of the checkout, and a daemon. The rehearsal is skipped where there is none."""
    STATE.mkdir(parents=True, exist_ok=True)
    log = STATE / "log"
    log.write_text("")
    try:
        with docker_daemon(STATE / "docker") as reached_at:
            say(f"Docker at {reached_at.get('DOCKER_HOST', 'its usual address')}; what is run is logged in {log}")
            copy = Checkout(copy_checkout(STATE / "checkout"), log, {**reached_at, "COMPOSE_PROJECT_NAME": PROJECT})
            copy.variables |= {"PORT": str(free_port())}
            copy.variables |= {f"{name.upper()}_IMAGE": f"{PROJECT}-{name}" for name in ("prometheus", "grafana")}
            copy.variables["PYTHON_IMAGE"] = os.environ.get("PYTHON_IMAGE") or make_base_image(copy)
            yield copy
            if reached_at:
                # Of a daemon that others use too, nothing is removed.
                copy.docker("image", "prune", "--force")
                copy.docker("builder", "prune", "--force", "--keep-storage", KEPT)
    except NoDaemon as missing:
        say(f"skipped: {missing}")
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def checkpoint(checkout: Checkout, mixtral_tokenizer_dir: Path) -> Path:
    """A tiny AutoAWQ Mixtral, in a directory with a name like that of the README."""
    directory = STATE / "models" / "casperhansen" / "mixtral-instruct-awq"
    return write_checkpoint(directory, MODEL, tiny_tensors(MODEL), mixtral_tokenizer_dir)


@pytest.fixture(scope="session")
def newer_checkpoint(checkpoint: Path, mixtral_tokenizer_dir: Path) -> Path:
    """Another one of that size, beside it. Its engine can be told by its name."""
    directory = checkpoint.with_name("mixtral-instruct-awq-newer")
    return write_checkpoint(directory, MODEL, tiny_tensors(MODEL, seed=1), mixtral_tokenizer_dir)


@pytest.fixture(scope="session")
def containers(checkout: Checkout) -> Containers:
    return Containers(checkout)


@pytest.fixture(scope="session")
def api(checkout: Checkout, checkpoint: Path) -> Api:
    """The API at its published port. The model's name is the checkpoint's path."""
    return Api(f"http://127.0.0.1:{checkout.variables['PORT']}", str(checkpoint))
