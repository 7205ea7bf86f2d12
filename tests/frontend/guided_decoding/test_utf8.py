"""No grammar writes anything but well-formed UTF-8, and each writes all characters that it should."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from frontend.guided_decoding import Constraint, Grammar, JsonObject, JsonSchema, Regex, to_ebnf_text
from frontend.guided_decoding.grammar_check import checked
from frontend.guided_decoding.utf8 import NON_ASCII_BYTES
from tests.frontend.guided_decoding.random_model import accepts, core_and_compiler, matching

GENERATION = Path(__file__).parents[3] / "model_repository" / "openvino" / "1" / "generation.py"
CHARACTERS = {
    chr(code).encode() for code in (0x80, 0x7FF, 0x800, 0xFFF, 0x1000, 0xCFFF, 0xD000, 0xD7FF, 0xE000, 0xFFFF)
}
CHARACTERS |= {chr(code).encode() for code in (0x10000, 0x3FFFF, 0x40000, 0xFFFFF, 0x100000, 0x10FFFF)}
"""The first and the last of each row of the Unicode Standard's table 3-7."""


def sequences() -> Iterator[bytes]:
    """Bytes that begin above ASCII: overlong, surrogates, above U+10FFFF, lone, cut short; and characters."""
    for lead in range(0x80, 0x100):
        yield bytes([lead])
        for second in (0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC2):
            for rest in (b"", b"\x80", b"\xbf", b"\x80\x80", b"\xbf\xbf", b"\x80\xc0", b"\x80\x80\x80", b"\xbf" * 4):
                yield bytes([lead, second]) + rest


def num_characters(text: bytes) -> int:
    """0 if it is ill-formed."""
    try:
        return len(text.decode())
    except UnicodeDecodeError:
        return 0


SEQUENCES = sorted({*sequences(), *CHARACTERS})


def schema(**keywords: object) -> JsonSchema:
    return JsonSchema(schema={"type": "string", **keywords}, param="response_format")


def regex(pattern: str) -> Regex:
    return Regex(pattern=pattern, param="guided_regex")


def grammar(*rules: str) -> Grammar:
    return Grammar(ebnf="\n".join(rules), param="guided_grammar")


NAMED = {"type": "object", "properties": {"name": {}}, "additionalProperties": True}
PLACES: list[tuple[Constraint, str, str]] = [
    (schema(), '"', '"'),
    (JsonObject(param="response_format"), '{"', '": 1}'),
    (schema(maxLength=3), '"a', 'b"'),
    (schema(maxLength=200), '"' + "a" * 40, '"'),
    (schema(maxLength=3000), '"' + "a" * 40, '"'),
    (schema(minLength=5, maxLength=20), '"ab', 'cde"'),
    (schema(minLength=40), '"ab', "c" * 40 + '"'),
    (JsonSchema(schema=NAMED, param="response_format"), '{"n', '": 1}'),
    (schema(pattern="^.{1,200}$"), '"', '"'),
    (schema(pattern="^(.|b{2,300})$"), '"', '"'),
    (regex(r"."), "", ""),
    (regex(r"[^\x00-\x7f]"), "", ""),
    (regex(r".*"), "a", "b"),
    (regex(r".{200}"), "", "a" * 199),
    (regex(r".{1,200}"), "a", "b"),
    (regex(r".{3,}"), "aa", ""),
    (regex(r".{150,}"), "", "a" * 150),
    (regex(r".{2}b{9}"), "a", "b" * 9),
    (regex(r"b{200}."), "b" * 200, ""),
    (regex(r"é|.|a{1,300}"), "", ""),
    (regex(r"(.b{1,300}){1,200}"), "", "bb"),
    (regex(r"([a-z]|éb|.c){1,200}"), "", "c"),
    (regex(r"(.{2,5}x){1,50}y"), "a", "axy"),
    (grammar(r'root ::= "\"" character* "\""', r'character ::= [^"\\\n] | "\\" [nrt"]'), '"', '"'),
    (grammar('root ::= [^a] ("b"){2,300} # {3} "('), "", "bbb"),
    (grammar('root ::= x "c"', "x ::= [^a]", '  | (("b" {2,300}) "d"){1,200}'), "", "c"),
    (grammar("root ::= x", "x ::= [^a] x | repeated{2,300}", 'repeated ::= "b"'), "c", "bb"),
    (grammar('root ::= ([^a]"}" [^{}b]){150}'), "c}", "c}c" * 149),
    (grammar(r'root ::= [^a"\]#{}-]+ [#"{}\]^-]'), "x", "#"),
    (grammar(r'root ::= "x" [^a]? "a"'), "x", "a"),
]


@pytest.mark.parametrize(("constraint", "before", "after"), PLACES)
def test_a_place_for_a_character_takes_all_characters_and_nothing_ill_formed(
    constraint: Constraint, before: str, after: str
) -> None:
    ebnf = to_ebnf_text(constraint)
    found = [text for text in SEQUENCES if accepts(ebnf, before.encode() + text + after.encode())]
    assert [text for text in found if not num_characters(text)] == []
    assert [text for text in SEQUENCES if num_characters(text) == 1 and text not in found] == []


def test_ascii_is_matched_as_before() -> None:
    texts = ["a", "b", "\n", "]", "{", "é", "", "bb"]
    assert matching(r"root ::= [^a\n\]]", texts) == ["b", "{", "é"]
    assert matching(r"root ::= [^a]{0,200}", texts) == ["b", "\n", "]", "{", "é", "", "bb"]


@pytest.mark.parametrize("ebnf", ['root ::= "a" | [b-z]{2,100} # {999}\n', 'root ::= "a{900}"\n'])
def test_a_grammar_without_negated_classes_stays_as_it_is(ebnf: str) -> None:
    assert checked(core_and_compiler()[0], ebnf) == ebnf


def test_the_cpu_engine_replaces_the_text_that_is_written_here() -> None:
    constants = [node for node in ast.parse(GENERATION.read_text()).body if isinstance(node, ast.Assign)]
    [replaced] = [node.value for node in constants if ast.unparse(node.targets[0]) == "NON_ASCII_BYTES"]
    assert ast.literal_eval(replaced) == NON_ASCII_BYTES
