"""Read the published engine directory: which checkpoint it came from, its tokenizer files and its chat template.

Not here: the tokenizer and the template that are made of these files, see text/.
"""

import hashlib
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from .errors import StartupError
from .generation import EndTokens, SamplingDefaults

_FORMATS = (3, 4)
"""The formats of the manifest that have what is read here. Format 4 added hashes."""
_DEFAULT_RANGES: Mapping[str, tuple[type[float], float, float]] = {
    "temperature": (float, 0, 2),
    "top_p": (float, 1e-6, 1),
    "top_k": (int, -1, 2**31 - 1),
    "min_p": (float, 0, 1),
    "repetition_penalty": (float, 1e-6, 2),
}
"""Type and range of each default that a generation_config.json may have. A request's ranges are in openai/fields.py."""
_SPECIAL_TOKEN_NAMES = ("bos_token", "eos_token", "unk_token", "pad_token")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineDir:
    """What build_engine published beside the engine."""

    checkpoint_path: str
    vocab_size: int  # rows of the embedding
    versions: dict[str, str]  # of what the engine was built with, by package
    fingerprint: str  # of the manifest: the same for equal engines
    tokenizer_json: bytes
    tokenizer_config: dict[str, Any]  # tokenizer_config.json
    special_tokens: dict[str, str]  # by the names that templates use: bos_token, eos_token, ...
    chat_template: str
    end_tokens: EndTokens

    @property
    def note(self) -> str:
        """What the checkpoint's `note` in tokenizer_config.json says to users, on one line; empty if there is none."""
        note = self.tokenizer_config.get("note")
        return "".join(filter(str.isprintable, note)) if isinstance(note, str) else ""


def read_engine_dir(path: Path, given_template: str = "") -> EngineDir:
    """`given_template`, as `read_given_template` takes it, is in place of the published one.

    Raises StartupError that names the file that is missing or wrong.
    """
    tokenizer_config = _read_json(path / "tokenizer_config.json")
    manifest = _read_json(path / "manifest.json")
    _check_format(path / "manifest.json", manifest.get("format"))
    try:
        checkpoint_path, vocab_size = str(manifest["checkpoint"]["path"]), int(manifest["model"]["vocab_size"])
        end_tokens = _end_tokens(manifest["model"]["end_tokens"])
    except (KeyError, TypeError, ValueError, OverflowError):
        raise StartupError(
            f"{path / 'manifest.json'} lacks checkpoint.path, model.vocab_size or model.end_tokens;"
            " build the engine again"
        ) from None
    return EngineDir(
        checkpoint_path=checkpoint_path,
        vocab_size=vocab_size,
        versions=_versions(manifest.get("versions")),
        fingerprint=_fingerprint(manifest),
        tokenizer_json=_read(path / "tokenizer.json"),
        tokenizer_config=tokenizer_config,
        special_tokens=_special_tokens(path / "tokenizer_config.json", tokenizer_config),
        chat_template=(
            read_given_template(given_template) if given_template else _chat_template(path, tokenizer_config)
        ),
        end_tokens=end_tokens,
    )


def _check_format(file: Path, found: Any) -> None:
    if found in _FORMATS and not isinstance(found, bool):
        return
    newer = isinstance(found, int) and found > _FORMATS[-1]
    remedy = "a newer build wrote it, use the frontend of that release" if newer else "build the engine again"
    raise StartupError(f"{file} has format {found!r}; accepted: {_FORMATS[0]} to {_FORMATS[-1]}; {remedy}")


def read_sampling_defaults(path: Path) -> SamplingDefaults:
    """The default sampling of the checkpoint in a published engine directory: those of its generation_config.json.

    As in newer vLLM: `do_sample` is not read, and neither is `max_new_tokens`, since the limit is in config.pbtxt.
    Raises StartupError for a value that no request could have.
    """
    file = path / "generation_config.json"
    if not file.exists():
        return SamplingDefaults()
    content = _read_json(file)
    given = {name: content[name] for name in _DEFAULT_RANGES if content.get(name) is not None}
    for name, value in given.items():
        kind, least, most = _DEFAULT_RANGES[name]
        is_number = isinstance(value, (int, kind)) and not isinstance(value, bool)
        if not is_number or not least <= value <= most:
            raise StartupError(
                f"{file}: {name} is {value!r:.80}; accepted: {kind.__name__}, {least:g} to {most:g}. Correct it in the"
                " checkpoint and build the engine again, or start with --generation-config vllm, which does not read it"
            )
    return SamplingDefaults(**given)


def served_names(given: Sequence[str], checkpoint_path: str) -> tuple[str, ...]:
    """The model names that clients may use: those given by the operator, else the checkpoint's path, as with vLLM."""
    return tuple(given) or (checkpoint_path,)


def _fingerprint(manifest: dict[str, Any]) -> str:
    """A `system_fingerprint` in the form of OpenAI's. Time and cost of the build differ between equal engines."""
    engine = {key: value for key, value in manifest.items() if key not in ("usage", "built")}
    return "fp_" + hashlib.sha256(orjson.dumps(engine, option=orjson.OPT_SORT_KEYS)).hexdigest()[:12]


def _read(path: Path) -> bytes:
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a FIFO would block for ever
            raise StartupError(f"cannot read {path}: not a regular file")
        return path.read_bytes()
    except OSError as exc:
        raise StartupError(f"cannot read {path}: {exc.strerror}") from exc


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = orjson.loads(_read(path))
    except orjson.JSONDecodeError as exc:
        raise StartupError(f"{path} is not JSON: {exc}") from exc
    if not isinstance(content, dict):
        raise StartupError(f"{path} holds no JSON object")
    return content


def _versions(found: Any) -> dict[str, str]:
    return {str(package): str(version) for package, version in found.items()} if isinstance(found, dict) else {}


def _special_tokens(file: Path, tokenizer_config: dict[str, Any]) -> dict[str, str]:
    """Hugging Face writes a token as a string or as an object that describes it."""
    texts: dict[str, str] = {}
    for name in _SPECIAL_TOKEN_NAMES:
        token = tokenizer_config.get(name)
        text = token.get("content") if isinstance(token, dict) else token
        if token and not isinstance(text, str):
            raise StartupError(f"{file}: {name} is {token!r:.80}; accepted: a string, or an object with content")
        if token:
            texts[name] = str(text)
    return texts


def _chat_template(path: Path, tokenizer_config: dict[str, Any]) -> str:
    """From chat_template.jinja, else from tokenizer_config.json; if that has several, the one named `default`."""
    file = path / "chat_template.jinja"
    if file.exists():
        try:
            return _read(file).decode()
        except UnicodeDecodeError as exc:
            raise StartupError(f"{file} is not UTF-8: {exc}") from exc
    template = tokenizer_config.get("chat_template")
    if isinstance(template, list):
        named = (entry for entry in template if isinstance(entry, dict))
        template = next((entry.get("template") for entry in named if entry.get("name") == "default"), None)
    if not isinstance(template, str):
        raise StartupError(
            f"{path} has no chat template (chat_template.jinja, or chat_template in tokenizer_config.json);"
            " give one with --chat-template, or add one to the checkpoint and build the engine again"
        )
    return template


def read_given_template(given: str) -> str:
    """The template that an operator gives: the content of a file, or, if there is no such file, the text itself.

    In such a text, escapes such as \\n are resolved. As in vLLM (`load_chat_template`), what has no `{`, `}` or line
    break must be a file. Raises StartupError.
    """
    try:
        return _read(Path(given)).decode()
    except UnicodeDecodeError as exc:
        raise StartupError(f"--chat-template: {given} is not UTF-8: {exc}") from exc
    except StartupError as exc:
        if not any(mark in given for mark in "{}\n"):
            raise StartupError(f"--chat-template: {exc}; accepted: a file, or a template in one line") from exc
    try:
        # Python's escapes are defined for Latin-1 only: what is beyond ASCII becomes an escape first.
        return given.encode("ascii", "backslashreplace").decode("unicode_escape")
    except UnicodeDecodeError as exc:
        raise StartupError(f"--chat-template: the escapes in {given!r:.200} cannot be read: {exc.reason}") from exc


def _end_tokens(given: dict[str, Any]) -> EndTokens:
    """As build_engine/end_tokens.py wrote them."""
    return EndTokens(
        end_id=int(given["end_id"]),
        pad_id=int(given["pad_id"]),
        other_end_ids=frozenset(map(int, given["other_end_ids"])),
    )
