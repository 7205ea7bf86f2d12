"""A small checkpoint that tests may damage, a model repository to build into, and the command for it."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE

from tests.tiny_mixtral import TINY

ROOT = Path(__file__).parents[2]
CONFIG_PBTXT = ROOT / "model_repository" / "openvino" / "config.pbtxt"
INDEX = "model.safetensors.index.json"

SMALL: dict[str, Any] = {**TINY, "vocab_size": 320}
"""Small enough for every test that changes a tensor to write a new one."""
FAKE_ENGINE = b"an engine that serves"


def write_small_tokenizer(directory: Path) -> None:
    """A byte-level BPE without merges: one token per byte, and three special ones."""
    directory.mkdir(parents=True)
    tokens = ["<unk>", "<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(BPE({token: token_id for token_id, token in enumerate(tokens)}, [], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(directory / "tokenizer.json"))
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (directory / "tokenizer_config.json").write_text(json.dumps(names))
    (directory / "chat_template.jinja").write_text("{% for message in messages %}{{ message.content }}{% endfor %}")


@dataclass(frozen=True)
class CheckpointDir:
    """A checkpoint on disk, and ways to change it. Methods return None, so that a lambda can be a `Damage`."""

    path: Path

    def configure(self, **fields: Any) -> None:
        """Set fields of config.json; None removes one."""
        self._merge("config.json", fields)

    def quantization(self, **fields: Any) -> None:
        """Set fields of quantization_config; None removes one."""
        config = json.loads((self.path / "config.json").read_bytes())
        self.configure(quantization_config=_merged(config["quantization_config"], fields))

    def write(self, name: str, content: bytes | str) -> None:
        """Replace a file."""
        (self.path / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    def remove(self, name: str) -> None:
        """Remove a file."""
        (self.path / name).unlink()

    def make_unreadable(self, name: str) -> None:
        """Replace a file by a link to itself, which cannot be read even by root."""
        self.remove(name)
        (self.path / name).symlink_to(name)

    def truncate(self, name: str, removed_bytes: int) -> None:
        """Cut a file short."""
        os.truncate(self.path / name, (self.path / name).stat().st_size - removed_bytes)

    def index(self, change: Callable[[dict[str, str]], object]) -> None:
        """Change the weight_map of the index in place."""
        content = json.loads((self.path / INDEX).read_bytes())
        change(content["weight_map"])
        self.write(INDEX, json.dumps(content))

    def shard_of(self, name: str) -> str:
        """The file that holds a tensor."""
        return str(json.loads((self.path / INDEX).read_bytes())["weight_map"][name])

    def tensor(self, name: str) -> NDArray[Any]:
        """A tensor as it is stored."""
        return load_file(self.path / self.shard_of(name))[name]

    def store(self, name: str, values: NDArray[Any], in_index: bool = True) -> None:
        """Replace a tensor where it is, or put a new one into the first shard."""
        shard = json.loads((self.path / INDEX).read_bytes())["weight_map"].get(name, "model-00001-of-00002.safetensors")
        tensors = {**load_file(self.path / shard), name: np.ascontiguousarray(values)}
        save_file(tensors, self.path / shard)
        if in_index:
            self.index(lambda weight_map: weight_map.update({name: shard}))

    def drop(self, name: str) -> None:
        """Remove a tensor from its shard and from the index."""
        shard = self.shard_of(name)
        tensors = load_file(self.path / shard)
        del tensors[name]
        save_file(tensors, self.path / shard)
        self.index(lambda weight_map: weight_map.pop(name))

    def poison(self, name: str, value: float) -> None:
        """Set one value of a tensor."""
        values = self.tensor(name).copy()
        values.reshape(-1)[-1] = value
        self.store(name, values)

    def _merge(self, name: str, fields: Mapping[str, Any]) -> None:
        self.write(name, json.dumps(_merged(json.loads((self.path / name).read_bytes()), fields)))


Damage: TypeAlias = Callable[[CheckpointDir], None]


def _merged(old: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in {**old, **changes}.items() if value is not None}


@dataclass(frozen=True)
class Repository:
    """A model repository with the product's config.pbtxt."""

    path: Path

    @property
    def model(self) -> Path:
        """The Triton model of the CPU target."""
        return self.path / "openvino"

    @property
    def version(self) -> Path:
        """The directory of model.py and of the engine."""
        return self.model / "1"

    @property
    def engine(self) -> Path:
        """Where the engine is published."""
        return self.version / "engine"

    @property
    def manifest(self) -> dict[str, Any]:
        """The manifest of the published engine."""
        content: dict[str, Any] = json.loads((self.engine / "manifest.json").read_bytes())
        return content

    def create(self) -> None:
        """Write the model without an engine."""
        self.version.mkdir(parents=True)
        shutil.copy(CONFIG_PBTXT, self.model)
        (self.version / "model.py").write_text("# serves\n")

    def hold_fake_engine(self) -> None:
        """Write a recognisable file in the engine's place."""
        self.engine.mkdir()
        (self.engine / "openvino_model.bin").write_bytes(FAKE_ENGINE)

    def limit(self, old: str, new: str) -> None:
        """Change the text of config.pbtxt."""
        text = (self.model / "config.pbtxt").read_text()
        assert old in text
        (self.model / "config.pbtxt").write_text(text.replace(old, new))

    def contents(self) -> dict[str, str]:
        """A hash of every file, and every directory by name; equal contents are equal byte for byte."""
        return {
            str(path.relative_to(self.path)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "/"
            for path in self.path.rglob("*")
        }

    def times(self) -> dict[str, int]:
        """When every file and directory was last written."""
        return {str(path.relative_to(self.path)): path.stat().st_mtime_ns for path in self.path.rglob("*")}

    def build(self, checkpoint: CheckpointDir) -> list[str]:
        """Arguments of the command that builds into this repository."""
        return ["build", "--target", "openvino", "--model-repository", str(self.path), str(checkpoint.path)]


def start(program: list[str], **options: Any) -> "subprocess.Popen[str]":
    """A Python process in the repository's root, with text pipes."""
    return subprocess.Popen(
        [sys.executable, *program],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        **{"stderr": subprocess.PIPE, **options},
    )
