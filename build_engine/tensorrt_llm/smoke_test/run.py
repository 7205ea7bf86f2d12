"""The smoke test: Triton loads the engine that is about to be published, and its answers are checked, in this order.

Three greedy answers; one of them twice; every optional input; the logits, if the engine gathers them; a guided answer
to its end; `stop`; a closed connection.
A line of the log says of each what was seen, and another what could not be checked.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from build_engine.checkpoint import Checkpoint
from build_engine.errors import EngineError, RepositoryError
from build_engine.tensorrt_llm.commands import Toolchain

from .answers import HOUSE, check_answers, longest_request
from .cancel import check_cancel, check_stop
from .client import Client
from .inputs import check_guided, check_inputs
from .logits import check_logits
from .model import Model, tokens_alike
from .triton import Serving, serving


@dataclass(frozen=True, slots=True, kw_only=True)
class SmokeTest:
    """The engine to serve, and the checkpoint that it was built from. `judged`: the right answers are known."""

    serving: Serving
    checkpoint: Checkpoint
    judged: bool


def smoke(test: SmokeTest, tools: Toolchain, say: Callable[[str], None]) -> None:
    """Start Triton on the engine, check its answers and end it. `say` gets the lines for the log.

    Raises ToolFailed when Triton ends, HostError when it cannot be started, RepositoryError for a context that is too
    short for the prompts, and EngineError for an answer that is wrong.
    """
    say("smoke: starting Triton on the engine")
    try:
        with serving(test.serving, tools) as client:
            for line in _checks(open_model(test, client), test.judged):
                say(f"smoke: {line}")
    except EngineError as error:
        raise EngineError(f"smoke: {error}") from error


def open_model(test: SmokeTest, client: Client) -> Model:
    """The served model and its tokenizer. Raises RepositoryError for a context that is too short for the prompts."""
    config = test.serving.config
    model = Model.of(config, test.checkpoint, client)
    if (longest := longest_request(model)) > model.max_seq_len:
        raise RepositoryError(
            f"{config.path}: max_seq_len is {model.max_seq_len}; accepted: at least {longest}, for the smoke test"
        )
    return model


def _checks(model: Model, judged: bool) -> Iterator[str]:
    yield from check_answers(model, judged)
    request = model.request(HOUSE.text, return_log_probs=True)
    first, second = model.generate(request), model.generate(request)
    alike = tokens_alike(first, second)
    # The second answer shows the speed: the kernels are loaded, the prompt is in the cache.
    yield f"{len(second.token_ids)} tokens, twice alike for {alike}, at {second.tokens_per_s:.1f} tokens/s"
    yield from check_inputs(model)
    yield from check_logits(model)
    yield from check_guided(model)
    yield from check_stop(model)
    yield from check_cancel(model, request, second)
