"""Text does not depend on how tokens are divided, is what the tokenizer decodes, and has no part of a stop string."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as HfTokenizer

from frontend.generation import EndTokens, GenerationRequest, SamplingParams, Token, TokenChunk
from frontend.text.detokenizer import AnswerDecoder, StopStrings, TextDecoder
from frontend.text.served_model import ServedModel

EMOJI = "🧑\u200d🚀👩🏽\u200d💻🏳️\u200d🌈"
TEXTS = st.text(alphabet=st.sampled_from(f"aé ñ\n▁你好�\u0301\ufeff{EMOJI}Haus"), max_size=30) | st.text(max_size=20)
FAMILIES = ["mixtral", "chatml"]


@pytest.fixture(params=FAMILIES)
def model(request: pytest.FixtureRequest) -> ServedModel:
    """Each family of tokenizers in turn."""
    served: ServedModel = request.getfixturevalue(request.param)
    return served


def token_ids_of(model: ServedModel, text: str) -> list[int]:
    return model.tokenizer.encode(model.tokenizer.escape_special_tokens(text))


def decode(model: ServedModel, pieces: Sequence[Sequence[int]]) -> str:
    decoder = TextDecoder(model.tokenizer.bytes_of(skip_special_tokens=True))
    return "".join([decoder.feed(piece) for piece in pieces]) + decoder.finish()


def cut(data: st.DataObject, sequence: Sequence[int]) -> list[Sequence[int]]:
    """Divide a sequence at random, into empty pieces too."""
    places = sorted(data.draw(st.lists(st.integers(0, len(sequence)), max_size=8)))
    return [sequence[begin:end] for begin, end in zip([0, *places], [*places, len(sequence)], strict=True)]


@settings(deadline=None)
@given(data=st.data(), text=TEXTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_text_is_what_was_encoded_however_the_ids_are_divided(
    request: pytest.FixtureRequest, family: str, data: st.DataObject, text: str
) -> None:
    model = request.getfixturevalue(family)
    written = text.replace("\ufdd0", "").replace("\ufdd1", "").replace("▁", " " if family == "mixtral" else "▁")
    leading_space = " " if family == "mixtral" and text else ""  # which its tokenizer puts in front of any text
    assert decode(model, cut(data, token_ids_of(model, text))) == leading_space + written


@settings(deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("family", FAMILIES)
def test_text_of_any_tokens_does_not_depend_on_how_they_are_divided(
    request: pytest.FixtureRequest, family: str, data: st.DataObject
) -> None:
    model = request.getfixturevalue(family)
    some_ids = (
        st.sampled_from(sorted(model.tokenizer.bytes_of(skip_special_tokens=True)))
        | st.integers(0, 260)
        | st.sampled_from([-1, 10**6])
    )
    token_ids = data.draw(st.lists(some_ids, max_size=20))
    assert decode(model, cut(data, token_ids)) == decode(model, [token_ids])


@settings(deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("family", FAMILIES)
def test_complete_characters_of_any_tokens_are_those_of_the_tokenizers_own_decoder(
    request: pytest.FixtureRequest, family: str, data: st.DataObject
) -> None:
    """Without U+FFFD: their number differs, as the tokenizer decodes a run of byte tokens completely or not at all."""
    model = request.getfixturevalue(family)
    words = [
        token_id
        for token_id, piece in model.tokenizer.bytes_of(skip_special_tokens=True).items()
        if piece.decode(errors="ignore").isalpha()
    ]
    token_ids = data.draw(st.lists(st.sampled_from(words), max_size=20))
    tokenizer: HfTokenizer = model.tokenizer._tokenizer
    context = words[0]  # the decoder strips a space from the first token only
    whole = tokenizer.decode([context, *token_ids])[len(tokenizer.decode([context])) :]
    assert decode(model, [token_ids]).replace("�", "") == whole.replace("�", "")


def test_first_space_of_an_answer_is_kept(mixtral: ServedModel) -> None:
    assert decode(mixtral, [[6004], [21209]]) == " Ein Haus"


def test_a_character_appears_with_its_last_byte(mixtral: ServedModel) -> None:
    decoder = TextDecoder(mixtral.tokenizer.bytes_of(skip_special_tokens=True))
    bytes_as_tokens = [3 + byte for byte in "🚀".encode()]
    assert [decoder.feed([token_id]) for token_id in bytes_as_tokens] == ["", "", "", "🚀"]


def test_a_character_that_stays_incomplete_becomes_a_replacement_character(model: ServedModel) -> None:
    first_byte = next(
        token_id for token_id, piece in model.tokenizer.bytes_of(skip_special_tokens=True).items() if piece == b"\xf0"
    )
    assert decode(model, [[first_byte]]) == "�"


def test_special_tokens_have_no_text(mixtral: ServedModel) -> None:
    assert decode(mixtral, [[1, 6004, 0, 2, 21209]]) == " Ein Haus"


def stop_at(stop: Sequence[str], pieces: Sequence[str]) -> tuple[str, str | None]:
    stop_strings = StopStrings(stop)
    text = "".join([stop_strings.feed(piece) for piece in pieces]) + stop_strings.finish()
    return text, stop_strings.matched


@given(
    data=st.data(),
    text=st.text(alphabet="abc", max_size=12),
    stop=st.lists(st.text(alphabet="abc", min_size=1, max_size=4), max_size=3),
)
def test_text_ends_at_the_stop_string_completed_first_however_it_is_divided(
    data: st.DataObject, text: str, stop: list[str]
) -> None:
    ends = [
        (end, -len(string), string) for end in range(len(text) + 1) for string in stop if text[:end].endswith(string)
    ]
    expected: tuple[str, str | None] = (text, None)
    if ends:
        end, minus_length, string = min(ends)
        expected = (text[: end + minus_length], string)
    places = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=12)))
    pieces = [text[begin:end] for begin, end in zip([0, *places], [*places, len(text)], strict=True)]
    assert stop_at(stop, pieces) == expected


def test_text_is_held_back_while_it_may_become_a_stop_string() -> None:
    stop_strings = StopStrings(["END."])
    assert [stop_strings.feed(piece) for piece in ("the E", "N", "D", "s. EN", "D.")] == ["the ", "", "", "ENDs. ", ""]
    assert stop_strings.matched == "END."


def answer(model: ServedModel, *, other_end_ids: frozenset[int] = frozenset(), **params: object) -> AnswerDecoder:
    fields = {"max_tokens": 100, "temperature": 0.0, "top_p": 1.0, "seed": 0, **params}
    request = GenerationRequest(
        prompt_token_ids=[1, 2, 3],
        sampling_params=SamplingParams(**fields),  # type: ignore[arg-type]
        end_tokens=EndTokens(end_id=2, pad_id=2, other_end_ids=other_end_ids),
    )
    return AnswerDecoder(
        request,
        model.tokenizer.bytes_of(skip_special_tokens=request.sampling_params.skip_special_tokens),
        with_tokens=True,
    )


def text_of(decoder: AnswerDecoder, *pieces: Sequence[int]) -> str:
    return "".join([decoder.feed(TokenChunk(piece)).text for piece in pieces]) + decoder.finish().text


def test_tokens_are_counted_up_to_the_one_that_completes_a_stop_string(mixtral: ServedModel) -> None:
    decoder = answer(mixtral, stop=("Haus ein",))
    text = text_of(decoder, [6004, 21209, 1796, 6004, 6004])
    assert (text, decoder.is_complete, decoder.outcome.usage.num_completion_tokens) == (" Ein ", True, 3)
    assert (decoder.outcome.ending.finish_reason, decoder.outcome.ending.stop_reason) == ("stop", "Haus ein")


def test_an_end_token_that_the_engine_does_not_stop_at_ends_the_answer_without_text(mixtral: ServedModel) -> None:
    decoder = answer(mixtral, other_end_ids=frozenset([21209]))
    assert text_of(decoder, [6004, 21209, 6004]) == " Ein"
    assert (decoder.is_complete, decoder.outcome.usage.num_completion_tokens) == (True, 1)
    assert (decoder.outcome.ending.finish_reason, decoder.outcome.ending.stop_reason) == ("stop", None)


def test_ignore_eos_applies_to_every_end_token(mixtral: ServedModel) -> None:
    decoder = answer(mixtral, other_end_ids=frozenset([21209]), ignore_eos=True)
    assert text_of(decoder, [6004, 21209, 6004]) == " Ein Haus Ein"


def test_nothing_stops_an_answer_before_min_tokens(mixtral: ServedModel) -> None:
    decoder = answer(mixtral, stop=("Ein",), min_tokens=3)
    assert text_of(decoder, [6004, 6004, 21209, 6004]) == " Ein Ein Haus "
    assert decoder.outcome.usage.num_completion_tokens == 4


@pytest.mark.parametrize(("num_tokens", "reason"), [(0, "stop"), (4, "stop"), (5, "length")])
def test_an_answer_of_max_tokens_was_cut_and_a_shorter_one_was_not(
    mixtral: ServedModel, num_tokens: int, reason: str
) -> None:
    decoder = answer(mixtral, max_tokens=5)
    text_of(decoder, [6004] * num_tokens)
    assert decoder.outcome.ending.finish_reason == reason


def test_a_stop_string_in_the_last_token_allowed_is_a_stop(mixtral: ServedModel) -> None:
    decoder = answer(mixtral, max_tokens=2, stop=("Haus",))
    text_of(decoder, [6004, 21209])
    assert decoder.outcome.ending.finish_reason == "stop"


def test_a_stop_token_id_ends_the_answer_and_is_its_stop_reason_with_ignore_eos_too(mixtral: ServedModel) -> None:
    decoder = answer(mixtral, stop_token_ids=frozenset([21209]), ignore_eos=True)
    assert text_of(decoder, [6004, 21209, 6004]) == " Ein"
    assert (decoder.outcome.ending.finish_reason, decoder.outcome.ending.stop_reason) == ("stop", 21209)


def test_no_token_is_lost_if_the_engine_sends_fewer_log_probabilities(mixtral: ServedModel) -> None:
    decoder = answer(mixtral)
    delta = decoder.feed(TokenChunk([6004, 21209], [-0.5]))
    assert (delta.text, [token.log_prob for token in delta.tokens]) == (" Ein Haus", [-0.5, None])


@pytest.mark.parametrize(("reported", "counted"), [(None, None), (0, 0), (2, 2), (32, 2)])
def test_the_last_token_of_the_prompt_is_never_counted_as_cached(
    mixtral: ServedModel, reported: int | None, counted: int | None
) -> None:
    """An engine counts in blocks; the prompt has 3 tokens."""
    decoder = answer(mixtral)
    for token_id in (6004, 21209):
        decoder.feed(TokenChunk([token_id], (), reported))
    assert decoder.outcome.usage.num_cached_tokens == counted


def test_stop_string_or_token_can_be_included_in_the_text(mixtral: ServedModel) -> None:
    by_text = answer(mixtral, stop=("aus",), include_stop_str_in_output=True)
    assert text_of(by_text, [6004, 21209, 1796]) == " Ein Haus"
    by_id = answer(mixtral, stop_token_ids=frozenset([21209]), include_stop_str_in_output=True)
    assert text_of(by_id, [6004, 21209, 1796]) == " Ein Haus"
    assert by_id.outcome.usage.num_completion_tokens == 2


def test_special_tokens_are_text_if_they_are_not_skipped(mixtral: ServedModel) -> None:
    assert text_of(answer(mixtral, skip_special_tokens=False, ignore_eos=True), [6004, 2, 21209]) == " Ein</s> Haus"


@settings(deadline=None)
@given(
    data=st.data(),
    token_ids=st.lists(st.sampled_from([6004, 21209, 1796, 243, 162, 157, 131, 0, 2, 28748, 356]), max_size=12),
    stop=st.lists(st.sampled_from(["Haus", "us e", " Ein Ei", "🚀", "nst"]), max_size=2, unique=True),
)
def test_tokens_come_once_in_order_not_before_their_text_and_however_they_are_divided(
    mixtral: ServedModel, data: st.DataObject, token_ids: list[int], stop: list[str]
) -> None:
    table = mixtral.tokenizer.bytes_of(skip_special_tokens=True)
    everything = [Token(token_id, table.get(token_id, b""), -float(at)) for at, token_id in enumerate(token_ids)]
    released: list[Token] = []
    decoder, text, fed = answer(mixtral, stop=tuple(stop)), "", 0
    for piece in cut(data, token_ids):
        log_probs = [-float(fed + at) for at in range(len(piece))]
        fed += len(piece)
        delta = decoder.feed(TokenChunk(piece, log_probs))
        text += delta.text
        released += delta.tokens
        assert len(b"".join([token.text for token in released[:-1]]).decode(errors="ignore")) <= len(text)
    last = decoder.finish()
    text, released = text + last.text, released + list(last.tokens)
    assert released == everything[: len(released)]
    at_once = answer(mixtral, stop=tuple(stop))
    first = at_once.feed(TokenChunk(token_ids, [token.log_prob or 0.0 for token in everything]))
    rest = at_once.finish()
    assert (text, released) == (first.text + rest.text, [*first.tokens, *rest.tokens])
    if decoder.outcome.ending.stop_reason is None:
        assert released == everything
    else:
        # Exactly the tokens that begin within the text.
        assert b"".join([token.text for token in released]).decode(errors="replace").startswith(text)
        assert len(b"".join([token.text for token in released[:-1]]).decode(errors="ignore")) < max(len(text), 1)
