"""The chat: lines of the user in, answers and remarks out."""

import json
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from .api import Api, ApiError
from .conversation import Conversation, request
from .figures import Figures
from .lines import COMMANDS, Command, UnknownCommand, read_line
from .terminal import Pipes

_ENDINGS = {"length": "cut off at max_tokens or at the end of the context"}
"""Of the reasons why an answer ended, those that a reader does not expect."""


class Chat:
    """One conversation with one model."""

    def __init__(
        self, api: Api, terminal: Pipes, model: str, conversation: Conversation, parameters: Mapping[str, Any]
    ) -> None:
        self._api = api
        self._terminal = terminal
        self._model = model
        self._conversation = conversation
        self._parameters = parameters
        self._commands: dict[str, Callable[[str], None]] = {
            "system": self._set_system,
            "save": self._save,
            "clear": self._clear,
            "help": self._help,
        }

    def run(self) -> bool:
        """Until the user ends it. Whether every message was answered and every command carried out."""
        done = True
        for line in self._terminal.lines():
            try:
                wanted = read_line(line)
                if isinstance(wanted, Command) and wanted.name == "quit":
                    break
                if isinstance(wanted, Command):
                    self._commands[wanted.name](wanted.argument)
                elif wanted is not None:
                    self._answer(wanted.text)
            except (ApiError, UnknownCommand, OSError) as error:
                self._terminal.remark(f"error: {error}")
                done = False
            except KeyboardInterrupt:  # one more than was needed to stop an answer
                if not self._terminal.is_interactive:
                    raise
        return done

    def _answer(self, text: str) -> None:
        """Send the conversation with this message, and show the answer as it comes.

        Raises ApiError; the message is then not kept, so that it can be sent again.
        """
        asked, answer = self._conversation.with_turn(text), Answer()
        try:
            with closing(self._api.stream(request(self._model, asked, self._parameters))) as deltas:
                for delta in deltas:
                    answer.add(delta.text, delta.num_tokens, delta.finish_reason)
                    self._terminal.write(delta.text)
        except KeyboardInterrupt:
            if not self._terminal.is_interactive:
                raise
            answer.ending = "stopped"
        finally:
            if answer.text:
                self._terminal.write("\n")
        self._terminal.remark(str(answer.figures()))
        self._conversation = asked.with_turn(answer.text)

    # ---- commands --------------------------------------------------------------------------------------------------

    def _set_system(self, text: str) -> None:
        self._conversation = replace(self._conversation, system=text)
        self._terminal.remark("the system prompt is set" if text else "there is no system prompt")

    def _save(self, name: str) -> None:
        """Raises OSError; a file that exists is kept."""
        if not name:
            raise UnknownCommand(COMMANDS["save"])
        body = request(self._model, self._conversation, self._parameters)
        with Path(name).expanduser().open("x", encoding="utf-8") as file:
            file.write(json.dumps(body, ensure_ascii=False, indent=2) + "\n")
        self._terminal.remark(f"saved {name}")

    def _clear(self, _: str) -> None:
        self._conversation = replace(self._conversation, turns=())
        self._terminal.remark("a new conversation")

    def _help(self, _: str) -> None:
        self._terminal.remark("\n".join(COMMANDS.values()))


class Answer:
    """What has come of an answer, and when."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.text = ""
        self.ending = ""
        self._clock = clock
        self._asked = clock()
        self._num_tokens = 0
        self._times: tuple[float, float] | None = None

    def add(self, text: str, num_tokens: int | None, finish_reason: str | None) -> None:
        """One event of the stream; `num_tokens` as in api.Delta. A server that does not count sends a token in each."""
        self.text += text
        self.ending = _ENDINGS.get(finish_reason or "", self.ending)
        count = num_tokens if num_tokens is not None else self._num_tokens + bool(text)
        if count > self._num_tokens:
            self._num_tokens, now = count, self._clock() - self._asked
            self._times = (self._times[0] if self._times else now, now)

    def figures(self) -> Figures:
        """So far."""
        first_s, last_s = self._times or (None, None)
        return Figures(num_tokens=self._num_tokens, first_s=first_s, last_s=last_s, ending=self.ending)
