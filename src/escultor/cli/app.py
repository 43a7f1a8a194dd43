"""The command `escultor`: one table of verbs, each loaded when it is asked for.

Exit codes: 0 done, 1 a fault, 2 wrong usage or input, 3 a verdict other than promote, 130 interrupted.
"""

from __future__ import annotations

import functools
import inspect
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext, redirect_stdout
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from escultor.cli.output import CommandResult, print_json, renamed_keys_on_stderr, shell_of
from escultor.cli.processes import Processes, launch, processes_of, report_once

INTERRUPTED = 130

# Verb: where its function is. Two words: a group and its command.
VERBS = {
    "init": "escultor.cli.init:init",
    "doctor": "escultor.cli.doctor:doctor",
    "demo": "escultor.cli.demo:demo",
    "data mine": "escultor.cli.data:mine",
    "data check": "escultor.cli.data:check",
    "data import": "escultor.cli.data_import:bring",
    "data preview": "escultor.cli.preview:preview",
    "data curate": "escultor.cli.datasets:curate",
    "data list": "escultor.cli.datasets:datasets",
    "data card": "escultor.cli.datasets:card",
    "data export": "escultor.cli.datasets:export",
    "data diff": "escultor.cli.datasets:diff",
    "data review": "escultor.cli.review:review",
    "pretrain": "escultor.cli.train:pretrain",
    "sft": "escultor.cli.train:sft",
    "dpo": "escultor.cli.train:dpo",
    "kto": "escultor.cli.train:kto",
    "distill": "escultor.cli.train:distill",
    "evaluate": "escultor.cli.evaluate:evaluate",
    "compare": "escultor.cli.compare:compare",
    "canary": "escultor.cli.compare:canary",
    "speed": "escultor.cli.speed:speed",
    "rate": "escultor.cli.rate:rate",
    "judge": "escultor.cli.judge:judge",
    "promote": "escultor.cli.deploy:promote",
    "rollback": "escultor.cli.deploy:rollback",
    "models": "escultor.cli.deploy:models",
    "merge": "escultor.cli.deploy:merge",
    "serve": "escultor.cli.serve:serve",
    "keys create": "escultor.cli.keys:create",
    "keys revoke": "escultor.cli.keys:revoke",
    "keys list": "escultor.cli.keys:list_keys",
    "interactions export": "escultor.cli.export:export_interactions",
    "interactions count": "escultor.cli.export:count_interactions",
    "interactions purge": "escultor.cli.export:purge_interactions",
    "feedback export": "escultor.cli.export:export_feedback",
    "feedback count": "escultor.cli.export:count_feedback",
    "subjects hash": "escultor.cli.subjects:hash",
    "subjects erase": "escultor.cli.subjects:erase",
    "subjects erasures": "escultor.cli.subjects:erasures",
    "cycle": "escultor.cli.cycle:cycle",
    "feedback convert": "escultor.cli.feedback:convert",
    "feedback advise": "escultor.cli.feedback:advise",
    "feedback quarantine": "escultor.cli.feedback:quarantine",
    "generate": "escultor.cli.generate:generate",
    "inspect": "escultor.cli.inspect:inspect",
}
GROUPS = {
    "data": "Make training data from the installed documentation, and look at your own.",
    "keys": "Who may use the gateway, and for what.",
    "interactions": "Every answer that was given, with its request.",
    "subjects": "What people may ask of what is kept about them.",
    "feedback": "What people made of the answers: all of it, what it comes to, and what is held back.",
}


class Verbs(TyperGroup):
    """Loads a verb's module when the verb is used, and puts every error into words."""

    def __init__(self, **options: Any):
        super().__init__(**options)
        self.commands = dict.fromkeys(dict.fromkeys(name.split()[0] for name in VERBS))  # type: ignore[assignment]

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.commands)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name in self.commands and self.commands[cmd_name] is None:
            self.commands[cmd_name] = _group(cmd_name) if cmd_name in GROUPS else _command(cmd_name)
        return self.commands.get(cmd_name)

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run, say what went wrong, and leave with the exit code."""
        given = sys.argv[1:] if args is None else list(args)
        options = given[: given.index("--")] if "--" in given else given
        as_json, debug = "--json" in options, "--debug" in options
        try:
            code = (
                super().main(given, prog_name, complete_var, False, windows_expand_args, obj=given, **extra)
                or 0
            )
            if code == INTERRUPTED:
                report_once(KeyboardInterrupt(), as_json, debug)
            sys.stdout.flush()
        except BrokenPipeError:
            # Whoever read the output has gone; flushing at the end must not complain either.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = 1
        except Exception as error:  # the one place where any error becomes a message
            code = report_once(error, as_json, debug)
        sys.exit(code)


app = typer.Typer(name="escultor", cls=Verbs, add_completion=False, rich_markup_mode="rich")


@app.callback(invoke_without_command=True)
def escultor(
    ctx: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Say which version this is.")] = False,
) -> None:
    """Close the loop around a language model: train it, prove that it is better, deploy it, go on."""
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
    # Bars of a library's own would stand in the way of ours; it asks when it is loaded.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    app()


def _command(name: str) -> Any:
    single = _app(name)
    single.command(name.split()[-1])(_bound(_function(name)))
    return typer.main.get_command(single)


def _group(group: str) -> Any:
    several = _app(group)
    several.callback(help=GROUPS[group])(lambda: None)
    for name in VERBS:
        if name.startswith(f"{group} "):
            several.command(name.split()[-1])(_bound(_function(name)))
    return typer.main.get_command(several)


def _app(name: str) -> typer.Typer:
    return typer.Typer(name=name, add_completion=False, rich_markup_mode="rich")


def _function(name: str) -> Callable[..., Any]:
    module, _, function = VERBS[name].partition(":")
    return getattr(import_module(module), function)


def _bound(function: Callable[..., Any]) -> Callable[..., Any]:
    """A command that takes a `shell`, with the options shared by all commands in its place; and where it
    takes `processes`, with the options to run in several."""
    own = dict(inspect.signature(function, eval_str=True).parameters)
    if own.pop("shell", None) is None:
        return function
    several = own.pop("processes", None) is not None
    shared = inspect.signature(shell_of, eval_str=True).parameters
    spread = inspect.signature(processes_of, eval_str=True).parameters if several else {}

    @functools.wraps(function)
    def command(context: typer.Context, **given: Any) -> int:
        shell = shell_of(**{name: given.pop(name) for name in shared})
        processes = processes_of(**{name: given.pop(name) for name in spread}) if several else Processes()
        if processes.nproc:
            return launch(processes, context.obj)
        # With --json, whatever is said on the way goes to stderr: stdout is the one line.
        on_stderr = redirect_stdout(sys.stderr) if shell.as_json else nullcontext()
        with processes.speaking(), on_stderr, renamed_keys_on_stderr():
            done: CommandResult = function(shell, **given, **({"processes": processes} if several else {}))
        if shell.as_json and processes.first:
            print_json(done.data)
        return done.code

    context = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    options = (*own.values(), *spread.values(), *shared.values())
    parameters = [context, *(p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in options)]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    del command.__wrapped__
    return command


if __name__ == "__main__":
    main()
