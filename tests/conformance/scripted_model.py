"""A model that knows what to say to the prompts of a test, and no more than a guide lets it say.

What it says is a script; how it gets there is not: it reads the prompt that the engine was given, and where there is a
guide, it says the first thing in its script that the grammar accepts. If there is none, it fails as an engine does.
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
"""Of Mixtral's vocabulary, in which every byte is a token."""


@dataclass(frozen=True)
class Line:
    """What is said to prompts that hold `cue`: words, or a call of `function` with `arguments`."""

    cue: str
    words: str = ""
    function: str = ""
    arguments: Any = None

    def texts(self) -> list[str]:
        """In words; or as a call that may be made, that must be made, and of which the arguments alone are left."""
        if not self.function:
            return [self.words]
        arguments = json.dumps(self.arguments, ensure_ascii=False)
        call = f'[{{"name": "{self.function}", "arguments": {arguments}}}]'
        return [f"{TOOL_CALLS} {call}", call, arguments]


@dataclass(frozen=True)
class ScriptedModel:
    """The engine's side: tensors to tokens."""

    tokenizer: Tokenizer
    script: Sequence[Line]

    def __call__(self, tensors: dict[str, Any]) -> list[Step]:
        """One token for each byte of the answer, in one response."""
        prompt = self.tokenizer.decode(tensors["input_ids"])
        grammar = tensors.get("guided_decoding_guide")
        texts = [text for line in self.script if line.cue in prompt for text in line.texts()]
        said = next((text for text in texts if grammar is None or matches(grammar, text)), None)
        return [Events(["nothing to say"] if said is None else [[_FIRST_BYTE_ID + byte for byte in said.encode()]])]
