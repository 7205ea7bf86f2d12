"""Serving limits, read from a model's `config.pbtxt`: the one place where they are set. Invents no defaults."""

from dataclasses import asdict, dataclass
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from .checkpoint import Checkpoint
from .errors import RepositoryError

_ACCEPTED = "a Triton model configuration"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What an engine is built for, spelled as TensorRT-LLM spells it; all in tokens but the batch size (requests)."""

    max_batch_size: int
    max_seq_len: int
    max_num_tokens: int

    def to_json(self) -> dict[str, int]:
        """For the manifest."""
        return asdict(self)


def read_limits(config_pbtxt: Path) -> Limits:
    """Raises RepositoryError when the file is missing, is not a Triton model config, or lacks a limit."""
    config = _parse(config_pbtxt)
    if config.max_batch_size < 1:
        raise RepositoryError(f"{config_pbtxt}: max_batch_size is {config.max_batch_size}; accepted: at least 1")
    return Limits(
        max_batch_size=config.max_batch_size,
        max_seq_len=_parameter(config, config_pbtxt, "max_seq_len"),
        max_num_tokens=_parameter(config, config_pbtxt, "max_num_tokens"),
    )


def read_tensor_parallel_size(config_pbtxt: Path) -> int:
    """GPUs that share the model: `tensor_parallel_size`. Raises RepositoryError as `read_limits` does."""
    return _parameter(_parse(config_pbtxt), config_pbtxt, "tensor_parallel_size")


def read_tokens_per_block(config_pbtxt: Path) -> int:
    """Of the KV cache: `tokens_per_block`. Raises RepositoryError as `read_limits` does."""
    return _parameter(_parse(config_pbtxt), config_pbtxt, "tokens_per_block")


def check_context(limits: Limits, config_pbtxt: Path, checkpoint: Checkpoint) -> None:
    """Raises RepositoryError for a context that is longer than the model's positions."""
    positions = checkpoint.config.max_position_embeddings
    if limits.max_seq_len > positions:
        raise RepositoryError(
            f"{config_pbtxt}: max_seq_len is {limits.max_seq_len}; accepted: at most {positions},"
            f" the positions of {checkpoint.path}"
        )


def _parse(config_pbtxt: Path) -> ModelConfig:
    try:
        return text_format.Parse(config_pbtxt.read_text(encoding="utf-8"), ModelConfig())
    except OSError as error:
        raise RepositoryError(f"{config_pbtxt}: cannot be read ({error.strerror}); accepted: {_ACCEPTED}") from error
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise RepositoryError(f"{config_pbtxt}: does not parse ({error}); accepted: {_ACCEPTED}") from error


def _parameter(config: ModelConfig, config_pbtxt: Path, key: str) -> int:
    text = config.parameters[key].string_value if key in config.parameters else ""
    if not text.isdecimal() or int(text) < 1:
        raise RepositoryError(f"{config_pbtxt}: parameter {key} is {text!r}; accepted: a positive integer")
    return int(text)
