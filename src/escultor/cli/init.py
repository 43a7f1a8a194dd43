"""`init`: a configuration file with every key, made from the models that read it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

from typer import Argument, Option

from escultor.cli.output import DEFAULT_CONFIG, CommandResult, Shell, write_text
from escultor.config import Config, Gate, Section
from escultor.config.evaluation import OF_THE_SKILL
from escultor.errors import InputError

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo


HEADER = """\
# The configuration of Escultor. Every key is here with its default; keys left out keep it.
# Unknown keys are refused. `--set section.key=value` sets one for a single call.
"""


def init(
    shell: Shell,
    folder: Annotated[Path, Argument(help="Folder of the project.")] = Path(),
    force: Annotated[bool, Option("--force", help="Overwrite an existing file.")] = False,
) -> CommandResult:
    """Write a commented escultor.yaml with every key and its default."""
    path = folder / DEFAULT_CONFIG
    if path.exists() and not force:
        allowed, remedy = "a folder without one", "give --force to overwrite it"
        raise InputError(f"{path} exists already", "a file", allowed, remedy)
    write_text(path, yaml_text())
    shell.print(f"wrote {path}")
    shell.print("next: escultor doctor, then escultor demo")
    return CommandResult({"config": path})


def yaml_text() -> str:
    """The default configuration as YAML; each key carries its description as a comment."""
    blocks = []
    for name, info in Config.model_fields.items():
        section = _section_of(info)
        if section is None:
            blocks.append(f"{name}: {_yaml(info.get_default())}  # {_comment(info)}")
            continue
        title = [f"# {line.strip()}" for line in (section.__dict__.get("__doc__") or "").strip().splitlines()]
        blocks.append("\n".join([*title, f"{name}:", *_keys(section, "  ")]))
    return HEADER + "\n" + "\n\n".join(blocks) + "\n"


def _keys(section: type[Section], indent: str) -> list[str]:
    """One line per key, with the comments in one column."""
    defaults = section().model_dump(mode="json")
    defaults |= dict.fromkeys(OF_THE_SKILL) if section is Gate else {}
    entries, inner_lines = {}, {}
    for name, info in section.model_fields.items():
        entries[name], inner_lines[name] = f"{indent}{name}: {_yaml(defaults[name])}", []
        inner = _section_of(info)
        if inner is not None and defaults[name] is not None:
            entries[name], inner_lines[name] = f"{indent}{name}:", _keys(inner, indent + "  ")
        elif inner is not None and _accepts(section, name):
            inner_lines[name] = [f"{indent}# {line}" for line in (f"{name}:", *_keys(inner, "  "))]
    column = min(44, max(map(len, entries.values())) + 2)
    lines = []
    for name, info in section.model_fields.items():
        lines += [f"{entries[name]:<{column - 2}}  # {_comment(info)}", *inner_lines[name]]
    return lines


def _yaml(value: Any) -> str:
    """A value as YAML on one line."""
    import yaml

    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=1000)
    return text.removesuffix("...\n").strip()


def _section_of(info: FieldInfo) -> type[Section] | None:
    """The section that a key holds, `X` or `X | None`; None for a plain value."""
    inner = () if get_origin(info.annotation) in (dict, tuple) else getattr(info.annotation, "__args__", ())
    options = (info.annotation, *inner)
    return next((o for o in options if isinstance(o, type) and issubclass(o, Section)), None)


def _comment(info: FieldInfo) -> str:
    """The key's description, after the allowed values where they are a list."""
    values = get_args(info.annotation) if get_origin(info.annotation) is Literal else ()
    return ": ".join(part for part in (" | ".join(values), info.description) if part)


def _accepts(section: type[Section], name: str) -> bool:
    """Whether the section accepts its optional part at all."""
    from pydantic import ValidationError

    try:
        section.model_validate({name: {}})
    except ValidationError:
        return False
    return True
