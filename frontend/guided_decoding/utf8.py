"""Rewrite a grammar so that what it writes is well-formed UTF-8.

xgrammar reads a negated class as any lead byte and its number of continuation bytes: `[^"]` admits overlong forms,
surrogates, and what lies above U+10FFFF. A model whose vocabulary has a token for each byte can write them.

Two releases of xgrammar read what is written here: TensorRT-LLM's, 0.1.25, and that of the CPU engine, a later one.
"""

import re
from collections.abc import Callable, Set

from .ebnf import ASCII, ascii_class, one_of

_CONTINUATION = r"[\x80-\xbf]"
NON_ASCII_BYTES = one_of(
    [
        rf"[\xc2-\xdf] {_CONTINUATION}",
        rf"[\xe0\xe0] [\xa0-\xbf] {_CONTINUATION}",
        rf"[\xe1-\xec\xee\xef] {_CONTINUATION} {_CONTINUATION}",
        rf"[\xed\xed] [\x80-\x9f] {_CONTINUATION}",
        rf"[\xf0\xf0] [\x90-\xbf] {_CONTINUATION} {_CONTINUATION}",
        rf"[\xf1-\xf3] {_CONTINUATION} {_CONTINUATION} {_CONTINUATION}",
        rf"[\xf4\xf4] [\x80-\x8f] {_CONTINUATION} {_CONTINUATION}",
    ]
)
"""One character outside ASCII, byte by byte (the Unicode Standard, table 3-7).

xgrammar 0.1.25 reads a class above ASCII as bytes, if two characters are in it: one alone is read as a character, so
it stands there twice. The later release reads code points, so the CPU engine puts a class of them in the place of this
text (NON_ASCII there, in model_repository/openvino/1/generation.py).
"""

_WRITTEN_OUT = 4
"""Repetitions up to which xgrammar 0.1.25 has no counter, but writes the element out."""
_TOKEN = re.compile(
    r"""
      (?P<atom> "(?:[^"\\\n]|\\.)*" | \[(?:[^\]\\\n]|\\.)*\] | [\w.-]+ )
    | (?P<count> \{[^}]*\} )
    | (?P<open> \( )
    | (?P<close> \) )
    | \#[^\n]* | .
    """,
    re.VERBOSE | re.DOTALL,
)


def well_formed(text: str, excluded: Callable[[str], Set[int]]) -> str:
    """A grammar without negated classes that matches the same texts, as far as they are well-formed.

    `text` must be a grammar that xgrammar parses; `excluded` returns the ASCII codes of a class of it. Each negated
    class becomes its characters in the place where it stands: a rule of their own would cost 30 ms for each token.
    """
    if "[^" not in text:
        return text
    rewriter = _Rewriter(text, excluded)
    for token in _TOKEN.finditer(text):
        rewriter.read(token)
    return rewriter.text()


class _Rewriter:
    """Writes the grammar anew, token by token, with each counted repetition in a rule of its own.

    In a rule with a counter xgrammar follows no automaton of bytes, and 0.1.25 refuses all bytes above ASCII there. It
    moves a rule of classes into one that begins with it.

    Left open: the later release, which counts beyond 128, takes overlong forms of what is in a class within or beside
    such a repetition. A form that it reads exactly takes it 100 ms for each token, where this one takes 0.1.
    """

    def __init__(self, text: str, excluded: Callable[[str], Set[int]]) -> None:
        self._excluded = excluded
        self._parts = list[str]()
        self._open = list[int]()
        self._element = 0  # where the last element begins in `_parts`
        self._classes = dict[str, str]()
        self._rules = dict[str, str]()
        self._prefix = "repeated"
        while self._prefix in text:
            self._prefix += "_"

    def read(self, token: "re.Match[str]") -> None:
        """Append the next token."""
        match token.lastgroup:
            case "atom":
                self._element = len(self._parts)
            case "open":
                self._open.append(len(self._parts))
            case "close":
                self._element = self._open.pop()
            case "count":
                self._repeat(token[0])
                return
        self._parts.append(self._class(token[0]) if token[0].startswith("[^") else token[0])

    def text(self) -> str:
        """The grammar so far."""
        return "".join(self._parts) + "".join(f"\n{name} ::= {body}" for body, name in self._rules.items())

    def _class(self, text: str) -> str:
        if text not in self._classes:
            codes = ASCII - self._excluded(text)
            self._classes[text] = one_of([ascii_class(codes), NON_ASCII_BYTES]) if codes else NON_ASCII_BYTES
        return self._classes[text]

    def _repeat(self, count: str) -> None:
        self._parts.append(count)
        if max(map(int, re.findall(r"\d+", count))) > _WRITTEN_OUT:
            self._parts[self._element :] = [self._rule("".join(self._parts[self._element :]))]

    def _rule(self, body: str) -> str:
        """The name of a rule for `body`."""
        return self._rules.setdefault(body, f"{self._prefix}_{len(self._rules)}")
