"""Skills by their names: those of the package, those of installed packages (entry point `escultor.skills`),
and declarations in files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from importlib.resources import files
from pathlib import Path

from escultor.errors import DataError, InputError
from escultor.skills.declaration import parse_skill, read_skill
from escultor.skills.skill import Skill

SUFFIX = ".skill.yaml"  # of the declarations in this folder
GROUP = "escultor.skills"  # of entry points: a `Skill`, or the declaration as a mapping


@cache
def built_in_names() -> tuple[str, ...]:
    """The skills of the package: its declarations."""
    names = (file.name for file in files("escultor.skills").iterdir())
    return tuple(sorted(name.removesuffix(SUFFIX) for name in names if name.endswith(SUFFIX)))


@cache
def built_in(name: str) -> Skill | None:
    """A skill of the package; None where it has none of that name."""
    if name not in built_in_names():
        return None
    import yaml

    text = files("escultor.skills").joinpath(f"{name}{SUFFIX}").read_text(encoding="utf-8")
    return parse_skill(yaml.safe_load(text), Path(str(files("escultor.skills"))), "built in")


def find_skill(name: str) -> Skill:
    """A skill by the path of its declaration, or by name. Raises InputError where there is none, DataError
    where the declaration is wrong."""
    if name.endswith((".yaml", ".yml")) or "/" in name:
        return read_skill(Path(name))
    if (found := built_in(name)) is not None:
        return found
    installed = _installed()
    if name in installed:
        return _loaded(installed[name])
    remedy = "`escultor skills new NAME` writes a declaration"
    known = ", ".join(sorted({*built_in_names(), *installed}))
    raise InputError(f"there is no skill `{name}`", "no such name", f"{known}, or a YAML file", remedy)


def load_skills(names: Iterable[str]) -> dict[str, Skill]:
    """The skills that a configuration lists, by name. Raises InputError for two of one name, and as
    `find_skill`."""
    skills: dict[str, Skill] = {}
    for each in names:
        skill = find_skill(each)
        if skill.name in skills:
            got = f"{skills[skill.name].source} and {skill.source}"
            raise InputError(f"two skills have the name `{skill.name}`", got, "a name each")
        skills[skill.name] = skill
    return skills


def answer_schemas(configured: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """The configured skills whose answers are JSON, with their schemas as JSON."""
    skills = load_skills(configured).values()
    return tuple((s.name, json.dumps(s.output.schema or {})) for s in skills if s.output.kind != "text")


def known_skills(configured: Iterable[str]) -> dict[str, Skill]:
    """Every skill that a name can mean: configured, of the package, of installed packages."""
    skills = load_skills(configured)
    for name in (*built_in_names(), *_installed()):
        if name not in skills:
            skills[name] = find_skill(name)
    return skills


def skill_named(name: str, configured: Mapping[str, Skill]) -> Skill | None:
    """The configured skill of this name, else the package's own; None where there is neither."""
    return configured.get(name) or built_in(name)


def _installed() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def _loaded(entry: EntryPoint) -> Skill:
    try:
        value = entry.load()
        value = value() if callable(value) and not isinstance(value, Skill) else value
    except (Exception, SystemExit) as error:  # whatever the other package does
        package = entry.dist.name if entry.dist else "its package"
        what, got = (
            f"the skill `{entry.name}` of {package} cannot be loaded",
            f"{type(error).__name__}: {error}",
        )
        raise DataError(what, got, remedy=f"mend or uninstall {package}") from error
    if isinstance(value, Mapping):
        value = parse_skill(dict(value), Path(), f"entry point {entry.value}")
    if not isinstance(value, Skill) or value.name != entry.name:
        got = value.name if isinstance(value, Skill) else type(value).__name__
        allowed = f"a Skill or its declaration with the name {entry.name}"
        raise DataError(f"the entry point {entry.value} gives no such skill", got, allowed)
    return value
