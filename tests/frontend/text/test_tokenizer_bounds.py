"""Text is encoded in pieces with the same tokens as at once, and its characters bound its tokens."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as HfTokenizer

from frontend.errors import InvalidRequest
from frontend.text import tokenizer_bounds
from frontend.text.tokenizer import Tokenizer
from frontend.text.tokenizer_bounds import MAX_RUN_CHARS, PIECE_CHARS, find_cut, max_chars_per_token, pieces
from tests.frontend.chatml_tokenizer import write_chatml_tokenizer

WORDS = [
    "Haus",
    "ist",
    "1",
    "23",
    "é",
    "ß",
    "</s>",
    "<s>",
    "▁",
    "_",
    ",",
    "\u0301",
    "世界",
    "😀",
    "'s",
    "\t",
    "\n",
    "  ",
]
TEXT = st.lists(st.sampled_from([*WORDS, *[" "] * 10]), max_size=40).map("".join)


@pytest.fixture(scope="module", params=["sentencepiece", "byte-level"])
def tokenizer_json(
    request: pytest.FixtureRequest, mixtral_tokenizer_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> bytes:
    directory = mixtral_tokenizer_dir
    if request.param == "byte-level":
        directory = tmp_path_factory.mktemp("byte_level")
        write_chatml_tokenizer(directory)
    return (directory / "tokenizer.json").read_bytes()


@pytest.fixture(scope="module")
def tokenizer(tokenizer_json: bytes) -> Tokenizer:
    return Tokenizer(tokenizer_json)


@pytest.fixture(scope="module")
def reference(tokenizer_json: bytes) -> HfTokenizer:
    """The checkpoint's tokenizer, for text in one piece."""
    return HfTokenizer.from_str(tokenizer_json.decode())


class TestPieces:
    @given(text=TEXT)
    def test_tokens_are_those_of_the_whole_text(self, tokenizer: Tokenizer, reference: HfTokenizer, text: str) -> None:
        whole = reference.encode(text, add_special_tokens=False).ids
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tokenizer_bounds, "PIECE_CHARS", 2)
            assert tokenizer.encode(text) == whole

    @given(text=TEXT)
    def test_escaped_special_tokens_stay_text(self, tokenizer: Tokenizer, reference: HfTokenizer, text: str) -> None:
        reference.encode_special_tokens = True
        whole = reference.encode(text.replace("\ufdd0", ""), add_special_tokens=False).ids
        reference.encode_special_tokens = False
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tokenizer_bounds, "PIECE_CHARS", 2)
            assert tokenizer.encode(tokenizer.escape_special_tokens(text)) == whole

    @pytest.mark.parametrize("text", ["", "a", "<s> a", "ein Haus " * 9])
    def test_tokens_around_a_text_are_added_once(
        self, tokenizer: Tokenizer, reference: HfTokenizer, monkeypatch: pytest.MonkeyPatch, text: str
    ) -> None:
        monkeypatch.setattr(tokenizer_bounds, "PIECE_CHARS", 2)
        with_special = reference.encode(text, add_special_tokens=True).ids
        without = reference.encode(text, add_special_tokens=False).ids
        assert tokenizer.encode_text(text, add_special_tokens=False) == without
        begins = with_special[:1] == without[:1]
        assert tokenizer.encode_text(text, add_special_tokens=True) == (without if begins else with_special)

    def test_long_text_is_cut_between_words_only(self) -> None:
        text = "ein Haus, " * PIECE_CHARS
        cut = [*pieces(text, "before")]
        assert "".join(cut) == text
        assert len(cut) > 5
        assert all(piece.startswith(" Haus") for piece in cut[1:])
        assert " ".join(pieces(text, "instead of")) == text

    def test_text_of_a_tokenizer_that_cannot_be_cut_is_one_piece(self) -> None:
        assert [*pieces("a b " * MAX_RUN_CHARS, None)] == ["a b " * MAX_RUN_CHARS]

    @pytest.mark.parametrize("run", ["a", " ", "\n", "世", "<|im_start|>"])
    def test_longest_text_without_a_place_to_cut(self, tokenizer: Tokenizer, run: str) -> None:
        text = (run * MAX_RUN_CHARS)[:MAX_RUN_CHARS]
        assert len([*pieces(text, "before")]) == 1
        with pytest.raises(InvalidRequest, match="131072 characters without a space between two words"):
            tokenizer.encode(f"ab cd {text} ,")


def description_of(tokenizer_json: bytes, **changes: Any) -> tuple[dict[str, Any], dict[str, int]]:
    description = json.loads(tokenizer_json) | changes
    return description, description["model"]["vocab"]


class TestWhereTextMayBeCut:
    def test_not_where_a_token_may_span_two_words(self, tokenizer_json: bytes, tokenizer: Tokenizer) -> None:
        description, vocabulary = description_of(tokenizer_json)
        assert find_cut(description, vocabulary, tokenizer.encode) is not None
        for spanning in ("of▁the", "ofĠthe"):
            assert find_cut(description, {**vocabulary, spanning: 1}, tokenizer.encode) is None

    @pytest.mark.parametrize("content", ["word", "<a b>", "<a", "a>"])
    def test_not_where_an_added_token_may_look_like_words(
        self, tokenizer_json: bytes, tokenizer: Tokenizer, content: str
    ) -> None:
        description, vocabulary = description_of(tokenizer_json, added_tokens=[{"content": content}])
        assert find_cut(description, vocabulary, tokenizer.encode) is None

    def test_not_where_the_tokens_come_out_different(self, tokenizer_json: bytes) -> None:
        description, vocabulary = description_of(tokenizer_json)
        assert find_cut(description, vocabulary, lambda text: [len(text)]) is None


class TestCharactersOfOneToken:
    def test_is_the_longest_token(self, tokenizer_json: bytes, tokenizer: Tokenizer) -> None:
        assert tokenizer.max_chars_per_token == max(map(len, json.loads(tokenizer_json)["model"]["vocab"]))

    @given(text=st.text(max_size=200) | TEXT | st.text(alphabet=" a", max_size=300))
    def test_no_text_has_fewer_tokens(self, tokenizer: Tokenizer, text: str) -> None:
        assert tokenizer.max_chars_per_token is not None
        assert len(text) <= tokenizer.max_chars_per_token * len(tokenizer.encode(text))

    @pytest.mark.parametrize(
        "changes",
        [
            {"normalizer": {"type": "Strip"}},
            {"normalizer": {"type": "NFC"}},
            {"normalizer": {"type": "Sequence", "normalizers": [{"type": "Lowercase"}]}},
            {"normalizer": {"type": "Replace", "pattern": {"String": "  "}, "content": "▁"}},
            {"normalizer": {"type": "Replace", "pattern": {"Regex": " +"}, "content": "▁"}},
            {"pre_tokenizer": {"type": "Whitespace"}},
            {"pre_tokenizer": {"type": "Split", "pattern": {"String": " "}, "behavior": "Removed"}},
            {"added_tokens": [{"content": "<mask>", "lstrip": True, "rstrip": False}]},
        ],
    )
    def test_is_unknown_where_a_step_may_drop_text(self, tokenizer_json: bytes, changes: dict[str, Any]) -> None:
        assert max_chars_per_token(*description_of(tokenizer_json, **changes)) is None
