"""Renamed and removed keys and values of the configuration: old files still load, with one warning.

To rename a key, append its full path to `RENAMED`: entries apply in order, so an old path is written as
earlier entries leave it. A renamed choice goes to `RENAMED_VALUES` under the key's present path, a removed
key to `REMOVED` with the reason. Entries are never deleted.
"""

from __future__ import annotations

import warnings
from typing import Any

from escultor.errors import ConfigError

RENAMED: dict[str, str] = {  # old path of a section or key -> its present path
    "routes": "feedback",
    "serve.feedback": "serve.intake",
    "feedback.burst_factor": "feedback.rate_anomaly_factor",
    "feedback.burst_floor": "feedback.rate_anomaly_floor",
    "feedback.dictated_share": "feedback.prompt_echo_share",
    "feedback.min_judged": "feedback.min_unpaired",
    "feedback.min_judged_side": "feedback.min_unpaired_side",
    "gate.level": "gate.alpha",
    "gate.looks": "gate.alpha_spending",
    "gate.most_looks": "gate.max_analyses",
    "gate.hopes": "gate.acceptance_targets",
    "canary.level": "canary.alpha",
    "canary.tuned_rated": "canary.tuned_ratings",
    "canary.step_requests": "canary.stage_requests",
    "canary.step_hours": "canary.stage_hours",
    "canary.least_rated": "canary.min_ratings",
    "canary.least_hours": "canary.min_hours",
    "canary.ratio_level": "canary.split_two_sided_alpha",
    "canary.breaches": "canary.breach_windows",
    "canary.most_errors": "canary.max_error_share",
    "canary.most_slow": "canary.max_slow_share",
}
RENAMED_VALUES: dict[str, dict[str, str]] = {  # present path -> {old value: present value}; lists by element
    "gate.alpha_spending": {"spend": "shared", "free": "full"},
}
REMOVED: dict[str, str] = {}  # present path -> why it no longer acts


class RenamedKeyWarning(FutureWarning):
    """The configuration uses a key or value under its old name."""


def current_path(path: str) -> str:
    """The present path of a key, which may lie below a section that was renamed."""
    for old, new in RENAMED.items():
        if path == old or path.startswith(f"{old}."):
            path = new + path[len(old) :]
    return path


def update_keys(data: dict[str, Any], where: str, notes: list[str]) -> dict[str, Any]:
    """A copy of a configuration with every key and value under its present name. Changes are appended to
    `notes`. Raises ConfigError where a key occurs under both names."""
    data = _copy(data)
    for old, new in RENAMED.items():
        if (section := _parent(data, old)) is None:
            continue
        value = section.pop(_last(old))
        target = _parent(data, new, create=True)
        if target is None or _last(new) in target:
            remedy = f"keep `{new}`, and move the content of `{old}` there"
            raise ConfigError(f"{where} has `{old}` and `{new}`, which mean the same", remedy=remedy)
        target[_last(new)] = value
        notes.append(f"`{old}` is now called `{new}`")
    for path, values in RENAMED_VALUES.items():
        if (section := _parent(data, path)) is not None:
            section[_last(path)] = _updated(section[_last(path)], values, path, notes)
    for path, reason in REMOVED.items():
        if (section := _parent(data, path)) is not None:
            del section[_last(path)]
            notes.append(f"`{path}` no longer acts: {reason}")
    return data


def warn(where: str, notes: list[str]) -> None:
    """Issue one warning for all old names in a configuration, if there are any."""
    if notes:
        text = f"{where}: {'; '.join(notes)}; the old form will stop working in a later version"
        warnings.warn(text, RenamedKeyWarning, stacklevel=3)


def _updated(value: Any, values: dict[str, str], path: str, notes: list[str]) -> Any:
    if isinstance(value, list | tuple):
        return [_updated(element, values, path, notes) for element in value]
    if not isinstance(value, str) or value not in values:
        return value
    notes.append(f"`{path}: {value}` is now `{path}: {values[value]}`")
    return values[value]


def _copy(value: Any) -> Any:
    return {key: _copy(item) for key, item in value.items()} if isinstance(value, dict) else value


def _last(path: str) -> str:
    return path.rpartition(".")[2]


def _parent(data: dict[str, Any], path: str, create: bool = False) -> dict[str, Any] | None:
    """The mapping that contains the last key of `path`; None where that key is absent. With `create` missing
    mappings are added instead."""
    section: Any = data
    *above, last = path.split(".")
    for key in above:
        if create and section.get(key) is None:
            section[key] = {}
        section = section.get(key)
        if not isinstance(section, dict):
            return None
    return section if create or last in section else None
