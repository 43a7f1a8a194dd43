"""`init`: a configuration file that says every key, made from the models that read it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

import typer

from escultor.cli.output import DEFAULT_CONFIG, CommandResult, Shell, write_text
from escultor.errors import InputError

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from escultor.config import Section

HEADER = """\
# The configuration of Escultor. Every key is here with its default; keys left out keep it.
# Unknown keys are refused. `--set section.key=value` sets one for a single call.
"""


def init(
    shell: Shell,
    folder: Annotated[Path, typer.Argument(help="Where the project is to be.")] = Path(),
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file that is there.")] = False,
) -> CommandResult:
    """Write a commented escultor.yaml with every key and its default."""
    path = folder / DEFAULT_CONFIG
    if path.exists() and not force:
        raise InputError(
            f"{path} is there already", "a file", "a folder without one", "give --force to overwrite it"
        )
    write_text(path, yaml_text())
    shell.say(f"wrote {path}")
    shell.say("next: escultor doctor, then escultor demo")
    return CommandResult({"config": path})


def yaml_text() -> str:
    """The default configuration as YAML; each key carries its description as a comment."""
    from escultor.config import Config

    blocks = []
    for name, info in Config.model_fields.items():
        section = _section_of(info)
        assert section is not None  # every key of the file is a section
        title = [f"# {line.strip()}" for line in (section.__dict__.get("__doc__") or "").strip().splitlines()]
        blocks.append("\n".join([*title, f"{name}:", *_keys(section, "  ")]))
    return HEADER + "\n" + "\n\n".join(blocks) + "\n"


def _keys(section: type[Section], indent: str) -> list[str]:
    """One line per key, their comments in one column."""
    defaults = section().model_dump(mode="json")
    own = {name: _section_of(info) for name, info in section.model_fields.items()}
    whole = {name for name, inner in own.items() if inner is not None and defaults[name] is not None}
    entries = [
        (f"{indent}{name}:" if name in whole else f"{indent}{name}: {_yaml(defaults[name])}", info)
        for name, info in section.model_fields.items()
    ]
    column = min(44, max(len(entry) for entry, _ in entries) + 2)
    lines = []
    for (entry, info), name in zip(entries, section.model_fields, strict=True):
        lines.append(f"{entry:<{column - 2}}  # {_described(info)}")
        inner = own[name]
        if inner is not None and name in whole:
            lines += _keys(inner, indent + "  ")
        elif inner is not None and _takes(section, name):
            lines += [f"{indent}# {line}" for line in (f"{name}:", *_keys(inner, "  "))]
    return lines


def _yaml(value: Any) -> str:
    """A value as YAML on one line."""
    import yaml

    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=1000)
    return text.removesuffix("...\n").strip()


def _section_of(info: FieldInfo) -> type[Section] | None:
    """The section that a key holds, `X` or `X | None`; None for a plain value."""
    from escultor.config import Section

    inner = () if get_origin(info.annotation) in (dict, tuple) else getattr(info.annotation, "__args__", ())
    options = (info.annotation, *inner)
    return next((o for o in options if isinstance(o, type) and issubclass(o, Section)), None)


def _described(info: FieldInfo) -> str:
    """The key's description, led by the words that it may be where it is a choice."""
    choice = get_args(info.annotation) if get_origin(info.annotation) is Literal else ()
    return ": ".join(part for part in (" | ".join(choice), info.description) if part)


def _takes(section: type[Section], name: str) -> bool:
    """Whether the section accepts its optional part at all."""
    from pydantic import ValidationError

    try:
        section.model_validate({name: {}})
    except ValidationError:
        return False
    return True
