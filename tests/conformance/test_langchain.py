"""LangChain's standard tests of chat models, run with ChatOpenAI against this server.

They need a model that follows instructions, so the engine is scripted. Skipped are tests of images, audio, PDFs and
Anthropic's message format, and a benchmark that replays recordings.
"""

from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx
import pytest
from langchain_core.language_models import BaseChatModel
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests.chat_models import ChatModelIntegrationTests

from frontend.text.served_model import ServedModel
from tests.conformance.scripted_model import Line, ScriptedModel
from tests.frontend.conftest import MODEL, Running

SCRIPT = [
    Line("[TOOL_RESULTS] {", "The function has answered."),
    Line("magic_function_no_args()", function="magic_function_no_args", arguments={}),
    Line("magic_function", function="magic_function", arguments={"input": 3}),
    Line("greeting_generator", function="greeting_generator", arguments={"answer_style": "Pirate"}),
    Line("my_adder_tool", function="my_adder_tool", arguments={"a": 3, "b": 4}),
    Line("San Francisco", function="get_weather", arguments={"location": "San Francisco, CA"}),
    Line("你好啊集团", function="unicode_customer", arguments={"customer_name": "你好啊集团", "description": "技术"}),
    Line("こんにちは", function="unicode_customer", arguments={"customer_name": "こんにちは", "description": "会社"}),
    Line("joke", '{"setup": "Why do cats purr?", "punchline": "Ask them."}'),
    Line("", " Hello, how are you?"),
]


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")  # of LangChain's own values
@pytest.mark.filterwarnings("ignore:Received a Pydantic BaseModel V1 schema")  # which a test sends on purpose
class TestChatOpenAI(ChatModelIntegrationTests):
    """LangChain's tests of a chat model with tools, tool choice, structured output and usage."""

    params: Mapping[str, Any]

    @pytest.fixture(autouse=True)
    async def _model(self, frontend: Running, mixtral: ServedModel) -> AsyncIterator[None]:
        """Give LangChain clients that are closed after the test: its own would outlive the test's event loop."""
        frontend.triton.script = ScriptedModel(mixtral.tokenizer, SCRIPT)
        with httpx.Client() as client:
            async with httpx.AsyncClient() as async_client:
                type(self).params = {
                    "base_url": f"{frontend.url}/v1",
                    "http_client": client,
                    "http_async_client": async_client,
                }
                yield

    @pytest.fixture
    def benchmark(self) -> None:
        """Requested by a test that skips itself."""

    @pytest.fixture
    def vcr(self) -> None:
        """Requested by a test that skips itself."""

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        """LangChain's client of OpenAI's API."""
        return ChatOpenAI

    @property
    def chat_model_params(self) -> dict[str, Any]:
        """The address of this server, and no retries."""
        own = {"model": MODEL, "api_key": "none", "max_retries": 0, "timeout": 60, "stream_usage": True}
        return {**own, **self.params}

    @property
    def supports_json_mode(self) -> bool:
        """By `response_format`."""
        return True

    @property
    def model_override_value(self) -> str:
        """The second name under which the model is served."""
        return "mixtral"
