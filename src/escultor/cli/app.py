"""The command `escultor`. The file and function of a command follow from its words:

    escultor WORD             function WORD in cli/WORD.py
    escultor GROUP WORD       function WORD in cli/GROUP.py, and of the group `data` in cli/data/WORD.py

`SHARED_FILES` lists the exceptions, commands that share a file. A name that Python uses itself ends with an
underscore: `import_`, `list_`, `hash_`. A file is loaded when its command is used.

Exit codes: 0 done, 1 a fault, 2 wrong usage or input, 3 a verdict other than promote, 130 interrupted.
"""

from __future__ import annotations

import ast
import builtins
import functools
import inspect
import keyword
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext, redirect_stdout
from dataclasses import is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from escultor.cli.output import CommandResult, Shell, print_json, warnings_on_stderr
from escultor.cli.processes import Processes, launch, report_once

INTERRUPTED = 130

COMMANDS = (
    *("init", "doctor", "demo"),
    *("data mine", "data check", "data import", "data preview", "data curate", "data list", "data card"),
    *("data export", "data diff", "data review"),
    *("pretrain", "sft", "dpo", "kto", "distill"),
    *("evaluate", "compare", "compare plan", "canary", "speed", "rate", "judge"),
    *("promote", "rollback", "merge", "models list", "models average", "models import", "models export"),
    "models mirror",
    *("deploy", "serve", "connect", "keys create", "keys revoke", "keys rotate", "keys list"),
    *("interactions export", "interactions import", "interactions count", "interactions purge"),
    *("feedback export", "feedback import", "feedback count"),
    *("subjects hash", "subjects erase", "subjects erasures"),
    *("cycle", "cycle run", "cycle status", "cycle approve", "cycle reject", "cycle resume", "cycle cancel"),
    *("cycle schedule", "cycle history", "lineage", "why"),
    *("monitor", "feedback convert", "feedback advise", "feedback quarantine"),
    *("backup", "restore", "gc"),
    *("generate", "inspect"),
    *("trinity", "trinity accept", "synthesize"),
    *("skills list", "skills show", "skills new", "skills test", "skills check"),
    "skills reward",
)
SHARED_FILES = {
    "gate_plan": ("compare plan",),
    "train": ("pretrain", "sft", "dpo", "kto", "distill"),
    "models": ("promote", "rollback", "merge"),
    "backup": ("restore", "gc"),
    "lineage": ("why",),
    "event_imports": ("interactions import", "feedback import"),
    "data.rows": ("data mine", "data check"),
    "data.datasets": ("data curate", "data list", "data card", "data export", "data diff"),
}
GROUPS = {
    "models": "The models of the store, and models in and out: GGUF, Ollama, adapters, safetensors.",
    "data": "Make training data from files, curate it and review it.",
    "skills": "What models are for: the declarations of skills.",
    "keys": "API keys of the gateway and their scopes.",
    "interactions": "The recorded requests and answers.",
    "subjects": "Erase what is stored about a person.",
    "feedback": "The recorded feedback, the training data made from it, and what is quarantined.",
}
ALONE = {"models": "models list"}  # what the name of a group does by itself


class CommandGroup(TyperGroup):
    """Loads the file of a command when the command is used, and reports every error in plain words."""

    def __init__(self, **options: Any):
        super().__init__(**options)
        self.commands = dict.fromkeys(name.split()[0] for name in COMMANDS)  # type: ignore[assignment]

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.commands)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name in self.commands and self.commands[cmd_name] is None:
            self.commands[cmd_name] = _load(cmd_name)
        return self.commands.get(cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """A command that also has a further word, as `compare plan`, is found by both."""
        name = " ".join(args[:2])
        if name in COMMANDS and args[0] in COMMANDS:
            return name, _load(name), args[2:]
        return super().resolve_command(ctx, args)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Show the list of commands; no file of theirs is imported for it."""
        for word in self.commands:
            self.commands[word] = TyperCommand(word, help=GROUPS.get(word) or _docstring(word))
        super().format_help(ctx, formatter)

    def main(self, args: Any = None, prog_name: Any = None, **extra: Any) -> Any:  # type: ignore[override]
        """Run the command, report an error, and exit with the exit code."""
        words = sys.argv[1:] if args is None else list(args)
        options = words[: words.index("--")] if "--" in words else words
        as_json, debug = "--json" in options, "--debug" in options
        try:
            code = super().main(words, prog_name, **extra | {"standalone_mode": False, "obj": words})
            if code == INTERRUPTED:
                report_once(KeyboardInterrupt(), as_json, debug)
            sys.stdout.flush()
        except BrokenPipeError:
            # The reader of the output has gone; flushing at the end must not fail either.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = 1
        except BaseException as error:  # the one place where any error becomes a message
            if isinstance(error, SystemExit | KeyboardInterrupt):
                raise  # all others are Exceptions, or the panic of a library written in Rust
            code = report_once(error, as_json, debug)
        sys.exit(code or 0)


app = typer.Typer(name="escultor", cls=CommandGroup, add_completion=False, rich_markup_mode="rich")


@app.callback(invoke_without_command=True)
def escultor(
    ctx: typer.Context, version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False
) -> None:
    """Close the loop around a language model: train it, prove that it is better, deploy it, repeat."""
    if version:
        from importlib.metadata import version as version_of

        typer.echo(version_of("escultor"))
        raise typer.Exit
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


def main() -> None:
    """The entry point of the installed command."""
    for stream in (sys.stdout, sys.stderr):
        getattr(stream, "reconfigure", lambda **_: None)(errors="replace")
    # Progress bars of the library would overwrite ours; it reads this when it is imported.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    if sys.argv[1:2] == ["generate"]:
        from escultor.cli.light_imports import import_modelling_code

        import_modelling_code()
    app()


def _module_and_function(name: str) -> tuple[str, str]:
    """Names of the module, below this package, and of the function of a command, by the rule above."""
    group, _, word = name.rpartition(" ")
    word += "_" * (keyword.iskeyword(word) or hasattr(builtins, word))
    own_file = f"data.{word}" if group == "data" else group or word
    return next((file for file, names in SHARED_FILES.items() if name in names), own_file), word


def function_of(name: str) -> Callable[..., CommandResult]:
    """The function of a command."""
    module, function = _module_and_function(name)
    return getattr(import_module(f"escultor.cli.{module}"), function)


def _docstring(name: str) -> str | None:
    """The docstring of a command's function, read without importing its file."""
    module, function = _module_and_function(name)
    tree = ast.parse(Path(__file__).parent.joinpath(*module.split(".")).with_suffix(".py").read_bytes())
    return next(
        ast.get_docstring(node)
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name == function
    )


def _load(word: str) -> Any:
    """The click command of a command or a group."""
    loaded = typer.Typer(name=word, add_completion=False, rich_markup_mode="rich")
    if word in ALONE:
        loaded.callback(help=GROUPS[word], invoke_without_command=True)(_alone(ALONE[word]))
    elif word in GROUPS:
        loaded.callback(help=GROUPS[word])(lambda: None)
    for name in COMMANDS:
        if name == word or (word in GROUPS and name.split()[0] == word):
            loaded.command(name.split()[-1])(_with_options(function_of(name)))
    return typer.main.get_command(loaded)


def _alone(name: str) -> Callable[..., int | None]:
    """The callback of a group that runs this command where no other is named."""
    command = _with_options(function_of(name))

    def callback(context: typer.Context, **values: Any) -> int | None:
        return None if context.invoked_subcommand else command(context, **values)

    callback.__signature__ = inspect.signature(command)  # type: ignore[attr-defined]
    callback.__annotations__ = command.__annotations__
    return callback


def _with_options(function: Callable[..., CommandResult]) -> Callable[..., int]:
    """The function as typer needs it: a parameter that is a dataclass is replaced by the dataclass's fields,
    each an option. They come after the function's other options, those of the first dataclass last."""
    parameters = inspect.signature(function, eval_str=True).parameters.values()
    groups: dict[str, Any] = {p.name: p.annotation for p in parameters if is_dataclass(p.annotation)}
    fields = {name: inspect.signature(group, eval_str=True).parameters for name, group in groups.items()}

    @functools.wraps(function)
    def command(context: typer.Context, **values: Any) -> int:
        for name, group in groups.items():
            values[name] = group(**{field: values.pop(field) for field in fields[name]})
        return _run(function, context.obj, **values)

    for name, group in groups.items():
        for parameter in fields[name].values():
            parameter.annotation.__metadata__[0].rich_help_panel = getattr(group, "panel", None)
    own = [p for p in parameters if p.name not in groups]
    options = [*own, *(p for group in reversed(fields.values()) for p in group.values())]
    signature = [
        inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context),
        *(p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in options),
    ]
    command.__signature__ = inspect.Signature(signature)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in signature}
    del command.__wrapped__
    return command


def _run(
    function: Callable[..., CommandResult],
    words: Sequence[str],
    shell: Shell,
    processes: Processes | None = None,
    **values: Any,
) -> int:
    """Call a command's function, print its result with --json, and return its exit code."""
    if processes:
        if processes.nproc:
            return launch(processes, words)
        values["processes"] = processes
    silenced = processes.silenced() if processes and not processes.first else nullcontext()
    # With --json stdout holds only the one line: everything else that is printed goes to stderr.
    on_stderr = redirect_stdout(sys.stderr) if shell.as_json else nullcontext()
    with silenced, on_stderr, warnings_on_stderr():
        result = function(shell=shell, **values)
    if shell.as_json and (processes is None or processes.first):
        print_json(result.data)
    return result.code


if __name__ == "__main__":
    main()
