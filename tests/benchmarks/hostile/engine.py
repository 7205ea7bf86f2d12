"""Requests to a KV cache that has no room for them, and to Triton's own port."""

from collections.abc import Iterator

from .attack import COMPLETIONS, TINY_CACHE_TOKENS, Attack, Outcomes, Send, Target, post, raw

_GENERATE = "/v2/models/openvino/generate"
_TENSORS = b'{"input_ids":[1,2,3],"input_lengths":3,"request_output_len":4}'


def _completion(prompt_tokens: int, max_tokens: int, seed: int) -> dict[str, object]:
    prompt = [1000 + seed, *[2000] * (prompt_tokens - 1)]
    return {"prompt": prompt, "max_tokens": max_tokens, "ignore_eos": True, "stream": True}


def _left_prompts(count: int, after_s: float) -> Send:
    """Long prompts whose client leaves before the first token, one after the other: no token is due to anyone."""

    async def send(target: Target) -> Outcomes:
        outcomes = Outcomes()
        for seed in range(count):
            outcomes += await post(COMPLETIONS, _completion(6000, 1, 100 + seed), timeout_s=after_s)(target)
        return outcomes

    return send


def _to_triton(*headers: str, length: int) -> bytes:
    lines = [f"POST {_GENERATE} HTTP/1.1", "Host: x", f"Content-Length: {length}", "Connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode()


def _foreign(_: Target) -> list[bytes]:
    return [_to_triton("Content-Type: text/plain", "Origin: https://evil.example", length=len(_TENSORS)) + _TENSORS]


def _nested(_: Target) -> list[bytes]:
    body = b'{"input_ids":' + b"[" * 200_000 + b"]" * 200_000 + b"}"
    return [_to_triton("Content-Type: application/json", length=len(body)) + body]


def _chunked(_: Target) -> Iterator[bytes]:
    yield f"POST {_GENERATE} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    for _unused in range(100):
        yield b"1\r\n \r\n" * 10_000
    yield b"0\r\n\r\n"


ATTACKS = (
    Attack("left-prompts-20", _left_prompts(20, 0.5)),
    Attack("cache-too-small", post(COMPLETIONS, _completion(TINY_CACHE_TOKENS + 1000, 8, 1)), tiny_cache=True),
    Attack("cache-outgrown", post(COMPLETIONS, _completion(1000, 6000, 2)), tiny_cache=True),
    Attack("cache-just-fits-6", post(COMPLETIONS, _completion(480, 400, 3), times=6), tiny_cache=True),
    Attack("triton-foreign-origin", raw(_foreign, to_triton=True)),
    Attack("triton-nested", raw(_nested, to_triton=True)),
    Attack("triton-chunks-1M", raw(_chunked, to_triton=True)),
)
