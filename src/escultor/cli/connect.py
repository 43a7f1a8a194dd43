"""`connect`: what another application needs, so that its answers and feedback come here."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from string import Template
from typing import Annotated

from typer import Argument, Option

from escultor.cli.output import CommandResult, Shell
from escultor.errors import InputError

APPLICATIONS = ("open-webui",)
# Headers of a connection, in Open WebUI's templates: who asks, its own id of the answer, what it asks itself.
HEADERS = {
    "x-escultor-subject": "{{USER_ID}}",
    "x-escultor-message": "{{MESSAGE_ID}}",
    "x-escultor-task": "{{TASK}}",
}


def connect(
    shell: Shell,
    application: Annotated[str, Argument(help="open-webui.")],
    url: Annotated[str, Option(help="The gateway, as the application reaches it.")] = "http://127.0.0.1:8000",
    out: Annotated[Path, Option(help="File to write the function to.")] = Path("escultor_open_webui.py"),
) -> CommandResult:
    """Show the settings that connect an application to the gateway, and write the function that sends its
    feedback."""
    if application not in APPLICATIONS:
        raise InputError("there is no such application", application, ", ".join(APPLICATIONS))
    if not url.startswith(("http://", "https://")) or '"' in url or "\\" in url:
        raise InputError("--url is no address", url, "http://HOST:PORT or https://HOST")
    url = url.rstrip("/").removesuffix("/v1")
    text = (resources.files("escultor") / "assets" / "connect" / "open_webui.txt").read_text("utf-8")
    try:
        with out.open("x", encoding="utf-8") as file:
            file.write(Template(text).substitute(url=url))
    except FileExistsError as error:
        remedy = "remove it, or name another"
        raise InputError("--out exists already", out, "a new file", remedy) from error
    shell.print("1. Admin panel, Settings, Connections: add an OpenAI connection")
    shell.print(f"   URL      {url}/v1")
    shell.print("   Key      a key of `escultor keys create`, or any text where the gateway has none")
    shell.print("   Headers  " + json.dumps(HEADERS))
    shell.print(f"2. Admin panel, Functions: import {out}, set its url and key, and switch it on")
    return CommandResult({"url": f"{url}/v1", "headers": HEADERS, "function": str(out)})
