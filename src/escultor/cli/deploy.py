"""`deploy`: a model written for another program to serve, and its answers there compared with the
model's."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from escultor.cli.lookup import ModelArgument, find_model, load_model
from escultor.cli.models import show_export
from escultor.cli.output import CommandResult, Shell
from escultor.errors import FaultError, InputError

URLS = {"ollama": "http://127.0.0.1:11434/v1", "vllm": "http://127.0.0.1:8000/v1"}
TARGETS = ("llamacpp", *URLS)


def deploy(
    shell: Shell,
    target: Annotated[str, Argument(help="llamacpp, ollama or vllm.")],
    model: ModelArgument,
    out: Annotated[Path, Option(help="Folder to write; new or empty.")],
    quant: Annotated[
        str | None, Option(help="Of the GGUF for llamacpp and ollama; see `models export`.")
    ] = None,
    name: Annotated[str | None, Option(help="Name to serve it by; default: the name of OUT.")] = None,
    run: Annotated[
        bool, Option("--run", help="Have the program serve it, and compare its greedy answers.")
    ] = False,
    url: Annotated[
        str | None, Option(help="Server to compare with; default: the program's own address.")
    ] = None,
) -> CommandResult:
    """Write what llama.cpp, Ollama or vLLM needs to serve a model; with --run, do it and check the
    answers."""
    from escultor.cycle.exchange import ModelExport, export_model
    from escultor.model.folders import is_adapter

    if target not in TARGETS:
        raise InputError("there is no such target", target, ", ".join(TARGETS))
    if run and target == "ollama" and shutil.which("ollama") is None:
        raise InputError("--run needs the program ollama", "it is not on the path", remedy="leave --run out")
    folder, name = find_model(shell, model), name or out.absolute().name
    whole = "adapter" if is_adapter(folder) else "safetensors"
    kind = whole if target == "vllm" else "gguf"
    made = export_model(ModelExport(folder, out, name, quant), kind)
    show_export(shell, made)
    answers: list[dict[str, Any]] = []
    if run:
        made |= {"target": target, "name": name, "quant": made.get("quant", "bf16")}
        answers = _check(shell, made, folder, url)
    return CommandResult({**made, "target": target, "answers": answers})


def _check(shell: Shell, made: dict[str, Any], folder: Path, url: str | None) -> list[dict[str, Any]]:
    """Serve the model and compare the answers. Raises ModelError that shows those that do not fit."""
    from escultor.cycle.serving_check import check_llama_cpp, check_server
    from escultor.model.gguf.llama_server import llama_server

    loaded, target, name, quant = load_model(folder), made["target"], made["name"], made["quant"]
    if target == "llamacpp" and url is None:
        with llama_server(made["file"]) as server:
            gaps = check_llama_cpp(loaded, server, quant)
    else:
        if target == "ollama":
            command = ["ollama", "create", name, "-f", str(made["folder"] / "Modelfile")]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise FaultError("ollama did not take the model", done.stderr.strip()[-300:])
        gaps = check_server(loaded, url or URLS[target], name, quant)
    heads = ["Prompt", "Tokens", "Equal until", "Largest gap (nats)"]
    shell.table(heads, [(g.prompt, g.tokens, g.equal, f"{g.gap:.3f}") for g in gaps])
    shell.print(f"all {len(gaps)} answers of {target} fit the model, but for rounding", "bold")
    return [asdict(gap) for gap in gaps]
