"""`generate`: one answer, or a conversation."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from escultor.cli.lookup import find_model, load_model
from escultor.cli.output import CommandResult, Shell
from escultor.errors import DataError, InputError

if TYPE_CHECKING:
    from escultor.model.loaded import Loaded
    from escultor.types import Messages, Sampling

INTRODUCTION = "one line per turn; an empty line ends the conversation"


def generate(
    shell: Shell,
    model: Annotated[
        str, typer.Argument(help="Model or run folder, checkpoint id, alias, or escultor-base.")
    ],
    text: Annotated[
        str | None, typer.Argument(help="What to say; `-`: read it from stdin; none: a conversation.")
    ] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Continue the text, without a chat prompt.")] = False,
    trinity: Annotated[bool, typer.Option("--trinity", help="Ask for the Trinity of the text.")] = False,
    out: Annotated[
        Path | None, typer.Option("--out", help="With --trinity: a folder for its three files.")
    ] = None,
    temperature: Annotated[
        float | None, typer.Option("--temperature", min=0, help="0: greedy; default: serve.temperature.")
    ] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option("--max-new-tokens", min=1, help="Default: serve.max_new_tokens.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the draws at a temperature above 0.")] = 0,
) -> CommandResult:
    """Let a model answer a text; without one, talk with it."""
    from escultor.types import Sampling

    _refuse_at_odds(raw, trinity, out, text)
    serve = shell.config.serve
    heat = serve.temperature if temperature is None else temperature
    sampling = Sampling(heat, 1.0, max_new_tokens or serve.max_new_tokens, seed)
    folder = find_model(model, shell.config.store.url)
    if text is None:
        _need_terminal(shell)
        loaded = load_model(folder)
        if raw or trinity:
            return _one_by_one(shell, loaded, sampling, raw, trinity)
        return _converse(shell, loaded, sampling)
    said = _stdin() if text == "-" else text
    if not said.strip():
        raise InputError("there is nothing to answer", "an empty text", "text", "say something")
    loaded = load_model(folder)
    answer = _answer(loaded, _prompt(loaded, said, raw, trinity), sampling)
    shell.say(answer.text)
    files = {} if out is None else {"files": _write(shell, answer.text, said, out)}
    usage = {"prompt_tokens": answer.prompt_tokens, "completion_tokens": len(answer.tokens)}
    return CommandResult({"text": answer.text, "finish_reason": answer.finish_reason, **usage, **files})


def _refuse_at_odds(raw: bool, trinity: bool, out: Path | None, text: str | None) -> None:
    if raw and trinity:
        raise InputError("--raw and --trinity exclude each other", "both", "one of both")
    if out is not None and (not trinity or text is None):
        raise InputError(
            "--out is for the Trinity of a text",
            "no text" if trinity else "no --trinity",
            "--trinity and a text",
            "add them, or leave --out away",
        )


def _write(shell: Shell, answer: str, document: str, out: Path) -> list[Path]:
    """The three files of a document's Trinity. Raises DataError where the answer is none."""
    from escultor.skills.trinity import parse_trinity, write_trinity

    paths = write_trinity(parse_trinity(answer), document, out)
    shell.say(f"wrote {', '.join(map(str, paths))}", "dim")
    return paths


def _prompt(loaded: Loaded, text: str, raw: bool, trinity: bool) -> list[int]:
    from escultor.skills.trinity import prompt_for
    from escultor.types import Message, Role

    chat = loaded.chat
    if raw:
        return chat.documents([text])[0][:-1]  # without the end-of-text token
    return chat.prompt(prompt_for(text) if trinity else (Message(Role.USER, text),))


def _answer(loaded: Loaded, prompt: list[int], sampling: Sampling) -> Any:
    from escultor.model.generate import generate as answers

    return answers(loaded, [prompt], sampling, 1)[0]


def _stdin() -> str:
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise DataError("stdin is not UTF-8", str(error), "UTF-8 text") from error


def _need_terminal(shell: Shell) -> None:
    if shell.as_json or not sys.stdin.isatty():
        raise InputError(
            "a conversation needs a terminal, and no --json",
            "no text",
            "a text",
            "give the text, or `-` to read it from stdin",
        )


def _converse(shell: Shell, loaded: Loaded, sampling: Sampling) -> CommandResult:
    """Turns that build on one another, until the end of input or an empty line."""
    from escultor.model.loaded import NO_LIMIT, context_length
    from escultor.types import Message, Role

    chat = loaded.chat
    room = context_length(loaded.model) or NO_LIMIT
    messages: Messages = ()
    turns = 0
    shell.say(INTRODUCTION, "dim")
    while line := _line():
        messages = (*messages, Message(Role.USER, line))
        while len(messages) > 1 and len(chat.prompt(messages)) + sampling.max_new_tokens > room:
            messages = messages[2:]
            shell.say("(the oldest turn no longer fits the model's context and is forgotten)", "dim")
        answer = _answer(loaded, chat.prompt(messages), sampling)
        shell.say(answer.text, "bold")
        messages = (*messages, Message(Role.ASSISTANT, answer.text))
        turns += 1
    return CommandResult({"turns": turns})


def _one_by_one(shell: Shell, loaded: Loaded, sampling: Sampling, raw: bool, trinity: bool) -> CommandResult:
    """Lines answered each by itself, until the end of input or an empty line."""
    turns = 0
    shell.say(INTRODUCTION, "dim")
    while line := _line():
        answer = _answer(loaded, _prompt(loaded, line, raw, trinity), sampling)
        shell.say(answer.text, "bold")
        turns += 1
    return CommandResult({"turns": turns})


def _line() -> str:
    try:
        return input("> ").strip()
    except EOFError:
        return ""
