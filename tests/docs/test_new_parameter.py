"""The steps of "Add a sampling parameter" in CONTRIBUTING.md: one test for each, which names what a step left out."""

import inspect
import re
from dataclasses import fields

from frontend.generation import SamplingParams
from frontend.openai.fields import SamplingFields
from frontend.openai.sampling import ENGINE_DEPENDENT, to_sampling_params

from .pages import ROOT, prose
from .parameter_table import GUIDED, NO_EFFECT, config_of, engine

BODY_FIELDS = set(SamplingFields.model_fields)
PARAMS = {field.name for field in fields(SamplingParams)}

NO_SAMPLING_PARAMETERS = {*GUIDED, *NO_EFFECT, "stream", "truncate_prompt_tokens"}
"""Fields of a body that are not about sampling: they shape the prompt, the grammar or the answer."""

OF_NO_FIELD = {"guide", "shown_token_ids"}
"""Sampling parameters that no field of a body has: the grammar and the tools decide them."""

ALWAYS_SENT = {"max_tokens", "temperature", "top_p", "seed", "ignore_eos"}
"""Every engine must have an input for these; `ignore_eos` is sent as an `end_id` of -1."""

OF_THE_FRONTEND = {
    "stop", "stop_token_ids", "include_stop_str_in_output", "skip_special_tokens", "shown_token_ids",
}  # fmt: skip
"""The detokenizer honours these: no engine sees them."""

WITHOUT_INPUT_OF_THE_GPU_ENGINE = {"min_p", "top_logprobs", "prompt_logprobs"}
"""TensorRT-LLM's model has no such inputs (release 1.2)."""

NOT_READ_BY_THE_CPU_ENGINE = {"pad_id"}
"""Part of the contract, and without meaning for OpenVINO."""


def test_step_2_every_field_of_a_body_is_a_sampling_parameter() -> None:
    not_passed_on = BODY_FIELDS - NO_SAMPLING_PARAMETERS - PARAMS
    assert not not_passed_on


def test_step_3_every_sampling_parameter_is_taken_from_the_body() -> None:
    source = inspect.getsource(to_sampling_params)
    not_taken = {name for name in PARAMS - OF_NO_FIELD if not re.search(rf"\b{name}=", source)}
    assert not not_taken


def test_step_3_every_sampling_parameter_that_an_engine_may_lack_is_refused_then() -> None:
    may_lack = PARAMS - ALWAYS_SENT - OF_THE_FRONTEND - OF_NO_FIELD
    assert may_lack == set(ENGINE_DEPENDENT)


def test_steps_4_and_5_every_sampling_parameter_has_an_input_of_the_gpu_engine() -> None:
    without_input = {*ENGINE_DEPENDENT, "guide"} - engine("tensorrt_llm").honours
    assert without_input == WITHOUT_INPUT_OF_THE_GPU_ENGINE


def test_step_6_the_cpu_engine_reads_every_input_that_it_declares() -> None:
    source = (ROOT / "model_repository" / "openvino" / "1" / "generation.py").read_text()
    inputs = {tensor["name"] for tensor in config_of("openvino")["input"]}
    assert {name for name in inputs if f'"{name}"' not in source} == NOT_READ_BY_THE_CPU_ENGINE


def test_the_steps_name_files_that_exist() -> None:
    _, _, steps = prose(ROOT / "CONTRIBUTING.md").partition("## Add a sampling parameter")
    paths = re.findall(r"`([\w./]+/[\w./]+)`", steps)
    assert paths
    assert not [path for path in paths if not (ROOT / path).exists()]
