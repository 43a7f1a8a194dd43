"""`generate`: one answer, or a conversation."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from escultor.cli.lookup import ModelArgument, find_model, load_model
from escultor.cli.output import CommandResult, Shell
from escultor.errors import DataError, InputError
from escultor.model.loaded import Loaded, max_context_tokens
from escultor.types import Message, Messages, Role, Sampling

if TYPE_CHECKING:
    from escultor.skills.skill import Skill

SMALL = (
    32 << 20
)  # weights: products with fewer gain nothing from a second thread, which waits for them in a loop
INTRODUCTION = "one message per line; an empty line ends the conversation"


@dataclass(frozen=True)
class SamplingOptions:
    """The options of how an answer is drawn."""

    temperature: Annotated[float | None, Option(min=0, help="0: greedy; default: serve.temperature.")] = None
    max_new_tokens: Annotated[int | None, Option(min=1, help="Default: serve.max_new_tokens.")] = None
    seed: Annotated[int, Option(min=0, help="Seed of the draws at a temperature above 0.")] = 0

    def sampling(self, shell: Shell) -> Sampling:
        """The options, completed from the configuration."""
        serve = shell.config.serve
        temperature = serve.temperature if self.temperature is None else self.temperature
        return Sampling(temperature, 1.0, self.max_new_tokens or serve.max_new_tokens, self.seed)


def generate(
    shell: Shell,
    options: SamplingOptions,
    model: ModelArgument,
    text: Annotated[str | None, Argument(help="The prompt; `-`: stdin; none: a conversation.")] = None,
    raw: Annotated[bool, Option("--raw", help="Continue the text, without a chat prompt.")] = False,
    skill: Annotated[
        str | None, Option(metavar="NAME|FILE", help="Ask in the prompt of a skill; the text is its input.")
    ] = None,
    out: Annotated[
        Path | None, Option(help="A folder for the files, of a skill whose output is files.")
    ] = None,
) -> CommandResult:
    """Let a model answer a text; without one, chat with it."""
    if raw and skill:
        raise InputError("--raw and --skill exclude each other", "both", "one of both")
    ask = None if skill is None else _named_skill(shell, skill)
    if out is not None and (ask is None or ask.output.write is None or text is None):
        writes = ask is not None and ask.output.write is not None
        got = "no text" if writes else f"the output of {ask.name if ask else 'a conversation'} is no files"
        allowed, remedy = "--skill NAME of a skill whose output is files, and a text", "or leave --out away"
        raise InputError("--out is for the files of an answer", got, allowed, remedy)
    sampling = options.sampling(shell)
    folder = find_model(shell, model)
    if text is None:
        _require_terminal(shell)
        return _converse(shell, _loaded(folder), sampling, ask, raw)
    prompt = _read_stdin() if text == "-" else text
    if not prompt.strip():
        raise InputError("there is nothing to answer", "an empty text", "text", "give a text")
    loaded = _loaded(folder)
    answer = _answer(loaded, _prompt_ids(loaded, prompt, ask, raw), sampling)
    shell.print(answer.text)
    files = {} if out is None or ask is None else {"files": _write(shell, ask, answer.text, prompt, out)}
    usage = {"prompt_tokens": answer.prompt_tokens, "completion_tokens": len(answer.tokens)}
    return CommandResult({"text": answer.text, "finish_reason": answer.finish_reason, **usage, **files})


def _loaded(folder: Path) -> Loaded:
    import torch

    loaded = load_model(folder)
    if sum(weights.numel() for weights in loaded.model.parameters()) <= SMALL:
        torch.set_num_threads(1)
    return loaded


def _named_skill(shell: Shell, name: str) -> Skill:
    from escultor.cli.skills import (
        named_skill,  # with the metrics of all skills, which a plain answer needs not
    )

    return named_skill(shell, name)


def _write(shell: Shell, skill: Skill, answer: str, text: str, out: Path) -> list[Path]:
    """Write the files of an answer. Raises DataError where it does not have the skill's form."""
    assert skill.output.write is not None
    paths = skill.output.write(answer, skill.prompt(text), out)
    shell.print(f"wrote {', '.join(map(str, paths))}", "dim")
    return paths


def _prompt_ids(loaded: Loaded, text: str, skill: Skill | None, raw: bool) -> list[int]:
    """The prompt of a skill, or of a conversation; of a raw text, which is continued."""
    if raw:
        return loaded.chat.raw_prompt(text)[0]
    return loaded.chat.prompt(skill.prompt(text) if skill else (Message(Role.USER, text),))


def _answer(loaded: Loaded, prompt: list[int], sampling: Sampling) -> Any:
    from escultor.model.generate import generate as answers

    return answers(loaded, [prompt], sampling, 1)[0]


def _read_stdin() -> str:
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise DataError("stdin is not UTF-8", str(error), "UTF-8 text") from error


def _require_terminal(shell: Shell) -> None:
    if shell.as_json or not sys.stdin.isatty():
        remedy = "give the text, or `-` to read it from stdin"
        raise InputError("a conversation needs a terminal, and no --json", "no text", "a text", remedy)


def _converse(
    shell: Shell, loaded: Loaded, sampling: Sampling, skill: Skill | None, raw: bool
) -> CommandResult:
    """Answer lines until the end of the input or an empty line. Chat messages build on those before, as far
    as they fit the context; a raw line or the input of a skill is answered by itself."""
    context = max_context_tokens(loaded.model)
    messages: Messages = ()
    turns = 0
    shell.print(INTRODUCTION, "dim")
    while line := _read_line():
        if skill or raw:
            prompt = _prompt_ids(loaded, line, skill, raw)
        else:
            messages = (*messages, Message(Role.USER, line))
            while len(messages) > 1 and len(loaded.chat.prompt(messages)) + sampling.max_new_tokens > context:
                messages = messages[2:]
                shell.print("(the oldest turn no longer fits the model's context and is forgotten)", "dim")
            prompt = loaded.chat.prompt(messages)
        answer = _answer(loaded, prompt, sampling)
        shell.print(answer.text, "bold")
        messages = (*messages, Message(Role.ASSISTANT, answer.text))
        turns += 1
    return CommandResult({"turns": turns})


def _read_line() -> str:
    try:
        return input("> ").strip()
    except EOFError:
        return ""
