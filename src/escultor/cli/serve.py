"""`serve`: the champion of the store behind OpenAI's protocol, every answer in the log first."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Annotated

from typer import Option

from escultor.cli.lookup import find_model, open_or_create_store
from escultor.cli.output import CommandResult, Shell
from escultor.config import Serve
from escultor.config.serving import ANY_MODEL
from escultor.errors import InputError
from escultor.skills.catalog import load_skills


def serve(
    shell: Shell,
    model: Annotated[str | None, Option(help="Serve this model; default: the store's champion.")] = None,
    port: Annotated[int, Option(min=0, max=65535, help="0: any that is free.")] = 8000,
    host: Annotated[str, Option(help="Address; others than this machine need API keys.")] = "127.0.0.1",
    workers: Annotated[int, Option(min=1, max=64, help="Processes, each with a model of its own.")] = 1,
    upstream: Annotated[str | None, Option(metavar="URL", help="OpenAI-compatible server to ask.")] = None,
    upstream_model: Annotated[str | None, Option(help="The model's name on that server.")] = None,
    monitor: Annotated[
        float | None, Option(metavar="SECONDS", help="Check the alert rules so often, in a process beside.")
    ] = None,
) -> CommandResult:
    """Answer requests in OpenAI's protocol; every answer is logged before it is sent."""
    from escultor.serve.engine_loading import EngineSource
    from escultor.serve.gateway import server

    settings, skills = shell.config.serve, load_skills(shell.config.skills)
    if len(skills) == 1 and "skill" not in settings.model_fields_set:
        settings = settings.model_copy(update={"skill": next(iter(skills))})
    if monitor is not None and monitor <= 0:
        raise InputError("checks need time between them", f"--monitor {monitor:g}", "seconds, above 0")
    if model is not None and upstream is not None:
        raise InputError("--model and --upstream exclude each other", "both", "one of both")
    if upstream is not None or upstream_model is not None:
        settings = _with_upstream(settings, upstream, upstream_model)
    if model is not None:
        # An option goes before the file.
        models = {name: each for name, each in settings.models.items() if name != ANY_MODEL}
        settings = settings.model_copy(update={"upstream": None, "models": models})
    folder = None
    # Where upstreams answer everything, no model is loaded, and no library that models need.
    if not settings.upstream and ANY_MODEL not in settings.models:
        from escultor.model.folders import BUILT_IN

        folder = find_model(shell, model or BUILT_IN)
    with open_or_create_store(shell) as store:
        server.require_keys(store, host)
    beside = nullcontext() if monitor is None else _monitor_beside(shell, monitor)
    with server.listen(host, port) as bound, beside:
        start = server.ServerStart(shell.store_url, settings, EngineSource(folder, fixed=model is not None))
        on_ready = partial(server.announce, host, bound, shell.print)
        if workers == 1:
            server.serve(start, bound, on_ready)
        else:
            server.serve_in_several(start, bound, workers, on_ready)
    shell.print("stopped")
    return CommandResult({"stopped": True})


def _monitor_beside(shell: Shell, every: float) -> AbstractContextManager[None]:
    from escultor.cli.monitor import monitor_beside
    from escultor.cycle.monitoring import check_config

    check_config(shell.config)
    return monitor_beside(shell, every)


def _with_upstream(settings: Serve, url: str | None, model: str | None) -> Serve:
    """The settings with the upstream's URL and model replaced where they are given."""
    upstream = settings.upstream.model_dump() if settings.upstream else {}
    upstream |= ({"url": url} if url else {}) | ({"model": model} if model else {})
    if missing := sorted({"url", "model"} - set(upstream)):
        names = " and ".join({"url": "--upstream", "model": "--upstream-model"}[name] for name in missing)
        raise InputError("an upstream has a URL and a model", f"no {names}", None, f"give {names}")
    return type(settings).model_validate({**settings.model_dump(), "upstream": upstream})
