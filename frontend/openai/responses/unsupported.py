"""Known parameters that /v1/responses refuses: they need what is not stored here, or have another name here."""

from collections.abc import Mapping

from frontend.openai.body import Unsupported

UNSUPPORTED_BY_RESPONSES: Mapping[str, Unsupported] = {
    "conversation": Unsupported("conversations have no names here; use `previous_response_id`, or send all as `input`"),
    "background": Unsupported("an answer is generated while its client waits", (False,)),
    "prompt": Unsupported("prompts are not stored here; write it out in `instructions` and `input`"),
    "truncation": Unsupported("nothing of a conversation is left out", ("disabled",)),
    "context_management": Unsupported("nothing of a conversation is left out", ([],)),
    "moderation": Unsupported("there is no moderation"),
    "verbosity": Unsupported("the model has no levels of it", ("medium",)),
    "include_obfuscation": Unsupported("streams are not padded", (False,)),
    "messages": Unsupported("it belongs to /v1/chat/completions; use `input`"),
    "max_tokens": Unsupported("use `max_output_tokens`"),
    "max_completion_tokens": Unsupported("use `max_output_tokens`"),
    "response_format": Unsupported("use `text.format`", ({"type": "text"},)),
    "logprobs": Unsupported("use `include`", (False,)),
    "prompt_logprobs": Unsupported("a response has no field for them"),
    "n": Unsupported("a response is one answer", (1,)),
    "return_token_ids": Unsupported("a response has no field for them", (False,)),
}
"""These come on top of the parameters that every endpoint refuses."""
