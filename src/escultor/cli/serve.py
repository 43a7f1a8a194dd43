"""`serve`: the champion of the store behind OpenAI's protocol, every answer in the log first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from escultor.cli.output import CommandResult, Shell
from escultor.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from escultor.config import Serve


def serve(
    shell: Shell,
    model: Annotated[
        str | None,
        typer.Option("--model", help="Serve this model, whatever the store says; default: its champion."),
    ] = None,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0: any that is free.")] = 8000,
    host: Annotated[
        str, typer.Option("--host", help="Others than this machine are served with API keys alone.")
    ] = "127.0.0.1",
    workers: Annotated[
        int, typer.Option("--workers", min=1, max=64, help="Processes, each with a model of its own.")
    ] = 1,
    upstream: Annotated[
        str | None,
        typer.Option("--upstream", metavar="URL", help="Ask this OpenAI-compatible server for the answers."),
    ] = None,
    upstream_model: Annotated[
        str | None, typer.Option("--upstream-model", help="Its name for the model to ask.")
    ] = None,
) -> CommandResult:
    """Answer requests in OpenAI's protocol; what was answered is in the log first."""
    from escultor.serve.engine_loading import EngineSource
    from escultor.serve.gateway.server import (
        ServerStart,
        announce,
        listen,
        require_keys,
        serve,
        serve_in_several,
    )
    from escultor.store import open_store

    url, settings = shell.config.store.url, shell.config.serve
    if model is not None and upstream is not None:
        raise InputError("--model and --upstream exclude each other", "both", "one of both")
    if upstream is not None or upstream_model is not None:
        settings = _behind(settings, upstream, upstream_model)
    if model is not None:
        settings = settings.model_copy(update={"upstream": None})  # what is typed goes before the file
    source = EngineSource(None if settings.upstream else _folder(model, url), fixed=model is not None)
    with open_store(url) as store:
        require_keys(store, host)
    bound = listen(host, port)
    with bound:
        start = ServerStart(url, settings, source)
        said = lambda: announce(host, bound, shell.say)  # noqa: E731
        if workers == 1:
            serve(start, bound, said)
        else:
            serve_in_several(start, bound, workers, said)
    shell.say("stopped")
    return CommandResult({"stopped": True})


def _folder(model: str | None, store_url: str) -> Path:
    # A gateway before an upstream loads no model, and none of what models need.
    from escultor.cli.lookup import find_model
    from escultor.model.folders import BUILT_IN

    return find_model(model or BUILT_IN, store_url)


def _behind(settings: Serve, url: str | None, model: str | None) -> Serve:
    """The settings with an upstream put in front of what the configuration says of it."""
    known = settings.upstream.model_dump() if settings.upstream else {}
    given = known | ({"url": url} if url else {}) | ({"model": model} if model else {})
    if lacking := sorted({"url", "model"} - set(given)):
        names = " and ".join({"url": "--upstream", "model": "--upstream-model"}[name] for name in lacking)
        raise InputError("an upstream has a URL and a model", f"no {names}", None, f"give {names}")
    return type(settings).model_validate({**settings.model_dump(), "upstream": given})
