"""Real JSON Schemas, class by class: python -m tests.benchmarks.schema_census DIR.

DIR has a folder for each class, with one schema in each JSON file. Printed for a class: how many are accepted, why the
others are refused, how many random answers are invalid by an independent validator (0, or the exit code is 1), the
processor time of translating, compiling and trying one (what a worker process does), and the time of a token mask on
Mixtral's vocabulary.

Schemas are not kept here. These were measured, at their state of autumn 2026: as `config` files of SchemaStore
(src/schemas/json), as `tools` those of github/github-mcp-server (__toolsnaps__), ShishirPatil/gorilla (BFCL_v4, live
and simple), guidance-ai/jsonschemabench (Glaiveai2K) and requests recorded by pydantic/pydantic-ai (tests/cassettes),
as `models` the schemas that tests of pydantic, pydantic-ai, openai-python, openai-agents-python, instructor,
openai-node, vercel/ai and zod-to-json-schema expect, as `packages` `model_json_schema()` of classes in `openai.types`,
as `protocols` jsonschemabench's Github, Snowplow, WashingtonPost, Kubernetes and MCPspec.
"""

import argparse
import json
import multiprocessing
import random
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
from jsonschema.protocols import Validator
from referencing.exceptions import Unresolvable

from frontend.guided_decoding import GuideLimits, JsonSchema, Vocabulary
from frontend.guided_decoding.grammar_check import compile_checked
from frontend.guided_decoding.worker import _Compiler
from frontend.guided_decoding.xgrammar import RAW_VOCABULARY, load_core
from frontend.text.tokenizer import Tokenizer
from tests.frontend.guided_decoding.random_model import answer, compiled
from tests.mixtral_tokenizer import write_mixtral_tokenizer

NUM_ANSWERS = 3
"""Random answers of each accepted schema."""
MASKS = 60
"""Token masks that are timed for each accepted schema."""
END_ID = 2
"""Mixtral's `</s>`."""
TOP = 12
"""Reasons for refusal that are printed."""
MAX_S = 20
"""Processor time of one schema, answers included; more of it ends the process, as GuideLimits.cpu_s does a worker."""


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one schema. `cpu_s` is its processor time; `mask_s` the seconds of each token mask."""

    refusal: str | None
    cpu_s: float
    mask_s: tuple[float, ...] = ()
    num_answers: int = 0
    invalid: tuple[str, ...] = ()


def mixtral_vocabulary() -> Vocabulary:
    """The vocabulary that the engine's grammars are compiled for."""
    with tempfile.TemporaryDirectory() as directory:
        write_mixtral_tokenizer(Path(directory))
        token_bytes = Tokenizer((Path(directory) / "tokenizer.json").read_bytes()).bytes_of(skip_special_tokens=True)
    return Vocabulary(token_bytes=dict(token_bytes), stop_token_ids=(END_ID,))


def validator_of(schema: Any) -> Validator:
    """An independent judge, of the draft that the schema names; if it names none, of the newest that it is valid by."""
    drafts = jsonschema.Draft202012Validator, jsonschema.Draft7Validator, jsonschema.Draft4Validator
    newest = next((draft for draft in drafts if draft(draft.META_SCHEMA).is_valid(schema)), drafts[0])
    cls = jsonschema.validators.validator_for(schema, default=newest)
    return cls(schema, format_checker=cls.FORMAT_CHECKER)


def invalid_answers(ebnf: str, schema: Any) -> tuple[int, tuple[str, ...]]:
    """How many random answers could be judged, and those that are invalid."""
    grammar, judge, invalid, num_judged = compiled(ebnf), validator_of(schema), list[str](), 0
    for seed in range(NUM_ANSWERS):
        if (text := answer(grammar, random.Random(seed), 1500)) is None:
            continue
        try:
            valid = judge.is_valid(json.loads(text))
        except (re.error, Unresolvable):
            continue  # a pattern that Python does not have, or a `$ref` into another file
        num_judged += 1
        invalid += [] if valid else [text]
    return num_judged, tuple(invalid)


class Census:
    """Measures schemas for one vocabulary, each in a process of its own, which may crash."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._core = load_core()
        self._worker = _Compiler(self._core, vocabulary, GuideLimits())
        self._size = max(vocabulary.token_bytes) + 1
        tokens = [vocabulary.token_bytes.get(token_id, b"") for token_id in range(self._size)]
        info = self._core.TokenizerInfo(tokens, RAW_VOCABULARY, self._size, [END_ID], False)
        self._compiler = self._core.GrammarCompiler(info, 1, False, -1)

    def measure(self, schema: Any) -> Result:
        """The result of one schema."""
        receiver, sender = multiprocessing.Pipe(duplex=False)
        process = multiprocessing.get_context("fork").Process(target=self._run, args=(schema, sender))
        process.start()
        sender.close()
        try:
            result: Result = receiver.recv()
        except EOFError:
            result = Result(f"the process ended (limit: {GuideLimits().cpu_s:g} s of processor time)", MAX_S)
        process.join()
        return result

    def _run(self, schema: Any, sender: Connection) -> None:
        signal.setitimer(signal.ITIMER_PROF, MAX_S)
        began = time.process_time()
        found = self._worker.answer(JsonSchema(schema=schema, param="x"))
        cpu_s = time.process_time() - began
        if cpu_s > GuideLimits().cpu_s:
            sender.send(Result(f"takes more than {GuideLimits().cpu_s:g} s of processor time", cpu_s))
        elif "ebnf" not in found:
            sender.send(Result(found["message"], cpu_s))
        else:
            num_answers, invalid = invalid_answers(found["ebnf"], schema)
            sender.send(Result(None, cpu_s, self._mask_times(found["ebnf"]), num_answers, invalid))

    def _mask_times(self, ebnf: str) -> tuple[float, ...]:
        """Seconds of each token mask of a random answer on the engine's vocabulary."""
        matcher = self._core.GrammarMatcher(compile_checked(self._core, self._compiler, ebnf), None, False, -1)
        mask, choose, times = np.zeros((1, -(-self._size // 32)), np.int32), random.Random(1), list[float]()
        while len(times) < MASKS:
            began = time.thread_time()
            matcher.fill_next_token_bitmask(mask, 0, False)
            times.append(time.thread_time() - began)
            allowed = np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little")[: self._size])
            if (token_id := int(choose.choice(allowed))) == END_ID or not matcher.accept_token(token_id, False):
                break
        return tuple(times)


def reason(message: str) -> str:
    """A refusal without what differs from schema to schema: its path, quoted values and numbers."""
    text = re.sub(r"^`x`( at \S*)?:? ", "", message)
    text = re.sub(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|\d+|\{.*\}", "…", text)
    return text[:110]


def print_class(name: str, results: Sequence[Result]) -> None:
    """The lines of one class."""
    accepted = [result for result in results if result.refusal is None]
    share = len(accepted) / len(results)
    answers, invalid = sum(each.num_answers for each in results), sum(len(each.invalid) for each in results)
    print(f"\n{name}: {len(accepted)} of {len(results)} accepted ({share:.1%}), {invalid} of {answers} answers invalid")
    if accepted:
        cpu_s = np.array([each.cpu_s for each in accepted])
        masks_s = np.concatenate([each.mask_s for each in accepted])
        print(f"  processor time: {_quantiles(cpu_s)}; token mask: {_quantiles(masks_s)}")
    refused = Counter(reason(result.refusal) for result in results if result.refusal is not None)
    for text, count in refused.most_common(TOP):
        print(f"  {count:4} {text}")


def _quantiles(seconds: Any) -> str:
    median, high, most = np.quantile(seconds, (0.5, 0.99, 1.0)) * 1e3
    return f"median {median:.3g}, 99 % {high:.3g}, most {most:.3g} ms"


def read_schemas(folder: Path) -> list[tuple[Path, Any]]:
    """The schemas of one class, by file name."""
    return [(path, json.loads(path.read_text())) for path in sorted(folder.glob("*.json"))]


def main() -> int:
    """The exit code: 0 if no answer is invalid."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, metavar="DIR")
    census, everything = Census(mixtral_vocabulary()), list[Result]()
    for folder in sorted(path for path in parser.parse_args().directory.iterdir() if path.is_dir()):
        results = []
        for path, schema in read_schemas(folder):
            results.append(census.measure(schema))
            for text in results[-1].invalid:
                print(f"INVALID {path}: {text[:300]}", flush=True)
        print_class(folder.name, results)
        everything += results
    print_class("all", everything)
    return 1 if any(result.invalid for result in everything) else 0


if __name__ == "__main__":
    sys.exit(main())
