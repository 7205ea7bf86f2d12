"""What a line of the user means: a message, or a command."""

from dataclasses import dataclass

COMMANDS = {
    "system": "/system TEXT  sets the system prompt from here on; without TEXT there is none",
    "save": "/save FILE  writes the conversation as the body of a request, JSON",
    "clear": "/clear  begins a new conversation; the system prompt stays",
    "help": "/help  lists these commands; a message that begins with / is written with //",
    "quit": "/quit  ends, as Ctrl-D does; Ctrl-C stops an answer",
}


@dataclass(frozen=True, slots=True)
class Message:
    """For the model."""

    text: str


@dataclass(frozen=True, slots=True)
class Command:
    """`name` is one of COMMANDS."""

    name: str
    argument: str


class UnknownCommand(Exception):
    """The message names the command and those that there are."""


def read_line(line: str) -> Message | Command | None:
    """None for an empty line. Raises UnknownCommand."""
    text = line.strip()
    if not text:
        return None
    if text.startswith("//"):
        return Message(text[1:])
    if not text.startswith("/"):
        return Message(text)
    name, _, argument = text[1:].partition(" ")
    if name not in COMMANDS:
        accepted = ", ".join(f"/{known}" for known in COMMANDS)
        raise UnknownCommand(f"there is no /{name}; there are {accepted}. A message that begins with / needs //")
    return Command(name, argument.strip())
