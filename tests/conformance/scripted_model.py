"""An engine that answers the prompts of a test from a script, within the grammar of the request.

It decodes the prompt from the tensors of the request. Of the scripted texts for that prompt it sends the first that the
grammar accepts, or the first of all if the request has no grammar. If none is left, it fails as an engine does.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from frontend.text.tokenizer import Tokenizer
from frontend.text.tools import TOOL_CALLS
from tests.frontend.fake_triton import Events, Step
from tests.frontend.guided_decoding.random_model import matches

_FIRST_BYTE_ID = 3
"""The token of byte 0. In Mixtral's vocabulary every byte is a token."""


@dataclass(frozen=True)
class Line:
    """The answer to prompts that contain `cue`: `words`, or a call of `function` with `arguments`."""

    cue: str
    words: str = ""
    function: str = ""
    arguments: Any = None

    def texts(self) -> list[str]:
        """The words; or the call in the form for each `tool_choice`: "auto", "required", and a named function."""
        if not self.function:
            return [self.words]
        arguments = json.dumps(self.arguments, ensure_ascii=False)
        call = f'[{{"name": "{self.function}", "arguments": {arguments}}}]'
        return [f"{TOOL_CALLS} {call}", call, arguments]


@dataclass(frozen=True)
class ScriptedModel:
    """From the tensors of a request to the engine's response."""

    tokenizer: Tokenizer
    script: Sequence[Line]

    def __call__(self, tensors: dict[str, Any]) -> list[Step]:
        """One token for each byte of the answer, in one response."""
        prompt = self.tokenizer.decode(tensors["input_ids"])
        grammar = tensors.get("guided_decoding_guide")
        texts = [text for line in self.script if line.cue in prompt for text in line.texts()]
        answer = next((text for text in texts if grammar is None or matches(grammar, text)), None)
        return [Events(["no text fits"] if answer is None else [[_FIRST_BYTE_ID + byte for byte in answer.encode()]])]
