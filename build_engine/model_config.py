"""Read a model's `config.pbtxt`, the one place where serving limits are set. There are no defaults."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from .checkpoint import Checkpoint
from .errors import RepositoryError

_ACCEPTED = "a Triton model configuration"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What an engine is built for, spelled as TensorRT-LLM spells it; all in tokens but the batch size (requests).

    With `gather_generation_logits`, it returns the logits of its tokens to requests that ask for them.
    """

    max_batch_size: int
    max_seq_len: int
    max_num_tokens: int
    gather_generation_logits: bool = False

    def to_json(self) -> dict[str, int]:
        """For the manifest. `gather_generation_logits` is left out if it is off, as in older manifests."""
        return {name: value for name, value in asdict(self).items() if value is not False}


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingConfig:
    """A `config.pbtxt` as it was read, once for a whole build.

    `tensor_parallel_size` and `tokens_per_block` raise RepositoryError when they are missing or no positive integer.
    """

    path: Path
    limits: Limits
    parsed: ModelConfig

    @property
    def preferred_batch_sizes(self) -> tuple[int, ...]:
        """The batch sizes that Triton's dynamic batcher prefers, in requests."""
        return tuple(self.parsed.dynamic_batching.preferred_batch_size)

    @property
    def tensor_parallel_size(self) -> int:
        """GPUs that share the model; a parameter of the GPU model only."""
        return _parameter(self.parsed, self.path, "tensor_parallel_size")

    @property
    def tokens_per_block(self) -> int:
        """Tokens in a block of the KV cache; a parameter of the GPU model only."""
        return _parameter(self.parsed, self.path, "tokens_per_block")

    def text_with(self, parameters: Mapping[str, str]) -> str:
        """The text of this config with other values for some parameters."""
        changed = ModelConfig()
        changed.CopyFrom(self.parsed)
        for key, value in parameters.items():
            changed.parameters[key].string_value = value
        return text_format.MessageToString(changed)


def read_serving_config(config_pbtxt: Path) -> ServingConfig:
    """Raises RepositoryError when the file is missing, is not a Triton model config, or lacks a limit."""
    parsed = _parse(config_pbtxt)
    if parsed.max_batch_size < 1:
        raise RepositoryError(f"{config_pbtxt}: max_batch_size is {parsed.max_batch_size}; accepted: at least 1")
    limits = Limits(
        max_batch_size=parsed.max_batch_size,
        max_seq_len=_parameter(parsed, config_pbtxt, "max_seq_len"),
        max_num_tokens=_parameter(parsed, config_pbtxt, "max_num_tokens"),
        gather_generation_logits=_flag(parsed, config_pbtxt, "gather_generation_logits"),
    )
    return ServingConfig(path=config_pbtxt, limits=limits, parsed=parsed)


def check_context(config: ServingConfig, checkpoint: Checkpoint) -> None:
    """Raises RepositoryError for a context that is longer than the model's positions."""
    model, positions = checkpoint.config, checkpoint.config.context_length
    bound = "the positions" if positions == model.max_position_embeddings else "the sliding_window"
    if config.limits.max_seq_len > positions:
        raise RepositoryError(
            f"{config.path}: max_seq_len is {config.limits.max_seq_len}; accepted: at most {positions},"
            f" {bound} of {checkpoint.path}"
        )


def _parse(config_pbtxt: Path) -> ModelConfig:
    try:
        return text_format.Parse(config_pbtxt.read_text(encoding="utf-8"), ModelConfig())
    except OSError as error:
        raise RepositoryError(f"{config_pbtxt}: cannot be read ({error.strerror}); accepted: {_ACCEPTED}") from error
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise RepositoryError(f"{config_pbtxt}: does not parse ({error}); accepted: {_ACCEPTED}") from error


def _flag(parsed: ModelConfig, config_pbtxt: Path, key: str) -> bool:
    """False if there is no such parameter."""
    text = parsed.parameters[key].string_value if key in parsed.parameters else "false"
    if text not in ("true", "false"):
        raise RepositoryError(f"{config_pbtxt}: parameter {key} is {text!r}; accepted: 'true' or 'false'")
    return text == "true"


def _parameter(parsed: ModelConfig, config_pbtxt: Path, key: str) -> int:
    text = parsed.parameters[key].string_value if key in parsed.parameters else ""
    if not text.isdecimal() or int(text) < 1:
        raise RepositoryError(f"{config_pbtxt}: parameter {key} is {text!r}; accepted: a positive integer")
    return int(text)
