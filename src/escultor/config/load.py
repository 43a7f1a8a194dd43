"""The configuration file: its sections and how it is read."""

from __future__ import annotations

import difflib
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from escultor.config import aliases
from escultor.config.curation import Curation
from escultor.config.cycle import Cycle
from escultor.config.evaluation import Canary, Evaluation, Gate
from escultor.config.feedback import FeedbackRules
from escultor.config.section import Section, setting
from escultor.config.serving import Monitor, Serve
from escultor.config.training import Distillation, Dpo, Kto, Pretrain, Sft
from escultor.errors import ConfigError
from escultor.strict_yaml import load_yaml


class ModelSection(Section):
    path: str = setting("escultor-base", help="a folder, or escultor-base (in the package)")


class StoreSection(Section):
    url: str = setting("escultor-store", help="a folder (SQLite), sqlite:///…, postgresql://…")


class Config(Section):
    """The whole file; every section is optional."""

    skills: tuple[str, ...] = setting((), help="what the model is for: names, or files such as ./a.yaml")
    store: StoreSection = StoreSection()
    model: ModelSection = ModelSection()
    pretrain: Pretrain = Pretrain()
    sft: Sft = Sft()
    dpo: Dpo = Dpo()
    kto: Kto = Kto()
    distillation: Distillation = Distillation()
    curation: Curation = Curation()
    evaluation: Evaluation = Evaluation()
    gate: Gate = Gate()
    canary: Canary = Canary()
    serve: Serve = Serve()
    monitor: Monitor = Monitor()
    feedback: FeedbackRules = FeedbackRules()
    cycle: Cycle = Cycle()


def load_config(path: Path | None = None, overrides: tuple[str, ...] = ()) -> Config:
    """Read a YAML file (None: all defaults) and apply `section.key=value` overrides. Keys under an old name
    (`config/aliases.py`) are read, with one warning. Raises ConfigError naming the file, the key, the nearest
    known key and what is allowed, for all problems at once."""
    where, data, notes = "the configuration", {}, []
    if path is not None:
        where = str(path)
        data = aliases.update_keys(_read(path), where, notes)
    for text in overrides:
        _apply(data, text, notes)
    aliases.warn(where, notes)
    return _validated(data, where)


def load_policy(path: Path) -> Gate:
    """Read a gate policy: a YAML file with the keys of `gate:`, or a whole configuration with that section.
    Keys under an old name are read, with one warning. Raises ConfigError as `load_config` does."""
    data, notes = _read(path), []
    data = aliases.update_keys(data if "gate" in data else {"gate": data}, str(path), notes)
    aliases.warn(str(path), notes)
    return _validated(data, str(path)).gate


def _read(path: Path) -> dict[str, Any]:
    data = _parsed(path)
    if not isinstance(data, dict | None):
        raise ConfigError(f"{path} is not a mapping", type(data).__name__, list(Config.model_fields))
    # a section with no keys is `null`
    return {key: value for key, value in (data or {}).items() if value is not None}


def _parsed(path: Path) -> Any:
    try:
        return load_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        remedy = "give the path of a YAML file; `escultor init` writes a configuration"
        raise ConfigError(f"{path} cannot be read", error.strerror, remedy=remedy) from error
    except (ValueError, yaml.YAMLError) as error:
        got = str(error).replace("\n", " ")
        raise ConfigError(f"{path} cannot be read as YAML", got, "YAML in UTF-8") from error


def _validated(data: dict[str, Any], where: str) -> Config:
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        raise ConfigError("\n".join([f"{where} cannot be used:", *_problems(error)])) from error


def _apply(data: dict[str, Any], text: str, notes: list[str]) -> None:
    """Set one `section.key=value`, the value read as YAML, under the key's present name."""
    name, equals, value = text.partition("=")
    keys = name.strip().split(".")
    is_plain = not isinstance(getattr(Config(), name.strip(), Section()), Section)
    if not equals or not all(keys) or (len(keys) < 2 and not is_plain):
        raise ConfigError(
            "an override cannot be read", repr(text)[:100], "section.key=value, such as dpo.beta=0.2"
        )
    try:
        parsed: Any = load_yaml(value)
    except yaml.YAMLError as error:
        raise ConfigError("an override's value is not YAML", repr(text)[:100]) from error
    if isinstance(parsed, str):
        with suppress(ValueError):
            parsed = float(parsed)  # YAML 1.1 reads 1e-5 as text
    nested: dict[str, Any] = {keys[-1]: parsed}
    for key in reversed(keys[:-1]):
        nested = {key: nested}
    updated = aliases.update_keys(nested, f"--set {text}", notes)
    *above, last = aliases.current_path(".".join(keys)).split(".")
    section: Any = data
    for key in above:
        section, updated = section.setdefault(key, {}), updated.get(key, {})
        if not isinstance(section, dict):
            raise ConfigError("an override goes below a plain value", repr(text), "section.key=value")
    if last in updated:  # absent: the key no longer exists
        section[last] = updated[last]


def _problems(error: ValidationError) -> list[str]:
    """One line per problem: the key, the value, what is allowed or the nearest known key."""
    lines = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            known = _known_keys(problem["loc"][:-1])
            near = difflib.get_close_matches(str(problem["loc"][-1]), known, 1)
            hint = f"did you mean `{near[0]}`?" if near else f"known: {', '.join(known)}"
            lines.append(f"  `{key}` is not a key; {hint}")
        else:
            got = problem["input"] if not isinstance(problem["input"], dict) else "the section"
            lines.append(f"  `{key}`: {problem['msg']}; got: {got!r}")
    return lines


def _known_keys(path: tuple[int | str, ...]) -> list[str]:
    section: Any = Config
    for part in path:
        if str(part) not in section.model_fields:
            continue  # a name that the user chose: the keys are those of what it names
        annotation = section.model_fields[str(part)].annotation
        options = [annotation, *getattr(annotation, "__args__", ())]
        section = next(o for o in options if isinstance(o, type) and issubclass(o, BaseModel))
    return list(section.model_fields)


def with_steps(config: Config, path: Path) -> Config:
    """The configuration with curation steps from a YAML list: names, or `name: {key: value}`, in order. Steps
    and keys under an old name are read, with one warning. Raises ConfigError as `load_config` does."""
    data = _parsed(path)
    shape = "a list of steps, each a name or `name: {key: value}`"
    if not isinstance(data, list):
        raise ConfigError(f"{path} is not a list of steps", type(data).__name__, shape)
    curation, notes = config.curation.model_dump(mode="json"), []
    curation["steps"] = []
    for step in data:
        settings = step if isinstance(step, dict) else {step: None} if isinstance(step, str) else {}
        if len(settings) != 1 or not all(isinstance(name, str) for name in settings):
            raise ConfigError(f"{path} contains an entry that is not a step", repr(step), shape)
        updated = aliases.update_keys({"curation": {**settings, "steps": list(settings)}}, str(path), notes)
        curation["steps"].extend(updated["curation"].pop("steps"))
        for name, values in updated["curation"].items():
            known = curation.get(name)
            if values is not None:
                merge = isinstance(known, dict) and isinstance(values, dict)
                curation[name] = dict(known or {}, **values) if merge else values
    aliases.warn(str(path), notes)
    return _validated(config.model_dump(mode="json", exclude_unset=True) | {"curation": curation}, str(path))
