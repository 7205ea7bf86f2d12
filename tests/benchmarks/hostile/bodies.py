"""Bodies as large as the server takes, each of one thing repeated.

In a template, @ is where the item is repeated, and # in an item is its number.
"""

from collections import Counter

from .attack import CHAT, COMPLETIONS, MODEL, RESPONSES, Attack, Outcomes, Send, Target, exchange, head, post

_USER = '"messages":[{"role":"user","content":%s}],"max_tokens":1'
_TOOL = '{"type":"function","function":{"name":"f#"}}'
_CALL = '{"id":"c#","type":"function","function":{"name":"f","arguments":"{}"}}'
_TURNS = [{"role": ("user", "assistant")[number % 2], "content": "Haus " * 8} for number in range(999)]
_SCHEMA = _USER % '"a"' + ',"response_format":{"type":"json_schema","json_schema":{"name":"a","schema":%s}}'


def filled(template: str, item: str, separator: str, size: int) -> bytes:
    """A JSON object of at most `size` bytes with as many items as fit."""
    before, after = ('{"model":"' + MODEL + '",' + template + "}").encode().split(b"@")
    room, unit = size - len(before) - len(after), len((item + separator).encode()) + 7 * item.count("#")
    count = max(room // unit, 0)
    if "#" in item:
        middle = separator.join(item.replace("#", f"{number:x}") for number in range(count)).encode()
    else:
        middle = ((item + separator) * count).removesuffix(separator or "\0").encode()
    return before + middle + after


def body(path: str, template: str, item: str, separator: str = ",", largest: int = 1 << 40) -> Send:
    """One body of `item` repeated, as large as the server takes or `largest` bytes."""

    async def send(target: Target) -> Outcomes:
        content = filled(template, item, separator, min(target.max_body_bytes, largest))
        return Counter([await exchange(target.port, [head(path, len(content)) + content])])

    return send


def text(path: str, template: str, item: str, largest: int = 1 << 40) -> Send:
    """One body with a long string."""
    return body(path, template, item, "", largest)


FROM_THE_ISSUE = (
    Attack("messages-of-numbers", body(CHAT, '"messages":[@]', "1")),
    Attack("parts-of-numbers", body(CHAT, _USER % "[@]", "1")),
    Attack("messages-of-empty", body(CHAT, '"messages":[@]', "{}")),
    Attack("messages-tiny", body(CHAT, '"messages":[@],"max_tokens":1', '{"role":"user","content":""}')),
    Attack("prompt-of-lists", body(COMPLETIONS, '"prompt":[@]', "[1]")),
    Attack("prompt-of-empty-lists", body(COMPLETIONS, '"prompt":[@]', "[]")),
    Attack("prompt-of-empty-texts", body(COMPLETIONS, '"prompt":[@]', '""')),
    Attack("prompt-long", text(COMPLETIONS, '"prompt":"@"', "a")),
    Attack("prompt-1M", text(COMPLETIONS, '"prompt":"@"', "a", 1_000_000)),
    Attack("special-tokens", text(CHAT, _USER % '"@"', "<|im_start|>")),
    Attack("tokenize-spaces", text("/tokenize", '"prompt":"@"', " ")),
    Attack("unknown-fields", body(CHAT, _USER % '"a"' + ",@", '"x#":1')),
    Attack("logit-bias", body(CHAT, _USER % '"a"' + ',"logit_bias":{@}', '"#":1')),
    Attack("tools", body(CHAT, _USER % '"a"' + ',"tools":[@]', _TOOL)),
)

MORE = (
    Attack("stops", body(CHAT, _USER % '"a"' + ',"stop":[@]', '"a"')),
    Attack("stop-ids", body(CHAT, _USER % '"a"' + ',"stop_token_ids":[@]', "1")),
    Attack("input-of-numbers", body(RESPONSES, '"input":[@]', "1")),
    Attack("input-of-messages", body(RESPONSES, '"input":[@]', '{"role":"user","content":"a"}')),
    Attack("detokenize", body("/detokenize", '"tokens":[@]', "1")),
    Attack("render", text(CHAT + "/render", _USER % '"@"', "a ")),
    Attack("prompt-of-ids", body(COMPLETIONS, '"prompt":[@]', "1")),
    Attack("deep", text(CHAT, _USER % '"a"' + ',"x":@', "[")),
    Attack("digits", text(CHAT, _USER % '"a"' + ',"max_tokens":@', "1")),
    Attack("float-digits", text(CHAT, _USER % '"a"' + ',"temperature":0.@', "1")),
    Attack("properties", body(CHAT, _SCHEMA % '{"type":"object","properties":{@}}', '"a#":{}')),
    Attack("enum", body(CHAT, _SCHEMA % '{"enum":[@]}', "#1")),
    Attack("any-of", body(CHAT, _SCHEMA % '{"anyOf":[@]}', '{"type":"null"}')),
    Attack("calls", body(CHAT, '"messages":[{"role":"assistant","tool_calls":[@]}]', _CALL)),
    Attack("one-name", body(CHAT, _USER % '"a"' + ",@", '"x":1')),
    Attack("escapes", text(CHAT, _USER % '"@"', r"\ud83d\ude00")),
    Attack("nul-escapes", text(CHAT, _USER % '"@"', r"\u0000")),
    Attack("combining", text(CHAT, _USER % '"@"', "\u0301")),
    Attack("hangul", text("/tokenize", '"prompt":"@"', "한")),
    Attack("model-name", text(CHAT, '"messages":[],"model":"@"', "a")),
    Attack("role", text(CHAT, '"messages":[{"role":"@","content":"a"}]', "a")),
    Attack("user", text(CHAT, _USER % '"a"' + ',"user":"@"', "a")),
    Attack("guided-choice", body(CHAT, _USER % '"a"' + ',"guided_choice":[@]', '"a#"')),
    Attack("guided-regex", text(CHAT, _USER % '"a"' + ',"guided_regex":"@"', "a?")),
    Attack("guided-grammar", text(CHAT, _USER % '"a"' + ',"guided_grammar":"root ::= @"', "(")),
    Attack("bad-words", body(CHAT, _USER % '"a"' + ',"bad_words":[@]', '"a#"')),
    Attack("kwargs", body(CHAT, _USER % '"a"' + ',"chat_template_kwargs":{@}', '"a#":1')),
    Attack("tokenize-32-at-once", post("/tokenize", {"prompt": "\u1e9e\u0301" * 26_000}, times=32)),
    Attack("render-16-at-once", post(CHAT + "/render", {"messages": _TURNS}, times=16)),
    Attack("context-of-words", text(COMPLETIONS, '"max_tokens":1,"prompt":"@"', "Haus ", 40_000)),
)

ATTACKS = (*FROM_THE_ISSUE, *MORE)
