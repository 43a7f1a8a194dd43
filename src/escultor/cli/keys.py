"""`keys`: API keys of the gateway and their scopes."""

from __future__ import annotations

import math
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any

from typer import Argument, Option

from escultor.cli.lookup import existing_store, open_or_create_store
from escultor.cli.output import CommandResult, Shell, local_time
from escultor.errors import InputError
from escultor.serve.auth import Keyring
from escultor.store import Store
from escultor.types import KeyEvent, KeyLimits, Scope


def create(
    shell: Shell,
    name: Annotated[str, Argument(help="What the key is for; shown in the list.")],
    scope: Annotated[
        list[str] | None, Option(help="infer, feedback, rater, read, approve, admin; default: two.")
    ] = None,
    skill: Annotated[
        str | None, Option(help="Its requests are filed under this skill, where they name none.")
    ] = None,
    tenant: Annotated[
        str | None, Option(help="Keys of one tenant share rows and users; default: NAME; '*': all.")
    ] = None,
    models: Annotated[
        list[str] | None, Option(help="Model name it may ask for, '*' any text; default: all.")
    ] = None,
    tokens_per_day: Annotated[int | None, Option(min=1, help="Budget of a UTC day.")] = None,
    tokens_per_month: Annotated[int | None, Option(min=1, help="Budget of a UTC month.")] = None,
    usd_per_day: Annotated[float | None, Option(help="Budget of a UTC day, by `serve.prices`.")] = None,
    usd_per_month: Annotated[float | None, Option(help="Budget of a UTC month, by `serve.prices`.")] = None,
    expires: Annotated[str | None, Option(metavar="DATE", help="Valid until then, UTC: 2027-01-31.")] = None,
) -> CommandResult:
    """Make a key and show it once: the store keeps only its digest."""
    from escultor.serve.auth import create

    scopes = scope or [Scope.INFER, Scope.FEEDBACK]
    if unknown := sorted(set(scopes) - set(Scope)):
        raise InputError("a scope is not known", ", ".join(unknown), ", ".join(Scope))
    limits = KeyLimits(
        models=tuple(models or ()),
        tokens_per_day=tokens_per_day,
        tokens_per_month=tokens_per_month,
        usd_per_day=_positive("--usd-per-day", usd_per_day),
        usd_per_month=_positive("--usd-per-month", usd_per_month),
        expires=None if expires is None else _moment(expires),
    )
    skill = "" if skill is None else _known_skill(shell, skill)
    key, event = create(name, [Scope(each) for each in scopes], limits=limits, tenant=tenant, skill=skill)
    with open_or_create_store(shell) as store:
        store.log.append(event)
    if not shell.as_json:  # its last line holds the key already, and stderr often ends in a log
        shell.print(key, "bold")
    scopes_given = ", ".join(event.scopes)
    shell.print(f"key {event.id} of {event.tenant} ({scopes_given}); it is not shown again", "dim")
    given = {"skill": skill} if skill else {}
    given |= {} if event.limits is None else {"limits": _given(event.limits)}
    return CommandResult(
        {"id": event.id, "key": key, "name": name, "scopes": event.scopes, "tenant": event.tenant, **given}
    )


def rotate(
    shell: Shell,
    id: Annotated[str, Argument(help="The key's id; `escultor keys list` shows it.")],
    overlap_hours: Annotated[float, Option(min=0, help="How long the old secret stays valid.")] = 0.0,
) -> CommandResult:
    """Give a key a new secret, shown once. Its id, scopes, limits and rows stay."""
    from escultor.serve.auth import rotate

    with existing_store(shell, "there are no keys") as store:
        key, event = rotate(_keyring(store), id, 3600 * overlap_hours)
        store.log.append(event)
    shell.print(key, "bold")
    until = f"the old one is valid until {local_time(event.old_until)}"
    shell.print(f"key {id} has this secret now; {until}", "dim")
    return CommandResult({"id": id, "key": key, "old_until": event.old_until})


def revoke(
    shell: Shell, id: Annotated[str, Argument(help="The key's id; `escultor keys list` shows it.")]
) -> CommandResult:
    """Revoke a key. Running gateways refuse it within `serve.follow_s`."""
    from escultor.serve.auth import revoke

    with existing_store(shell, "there are no keys") as store:
        store.log.append(revoke(_keyring(store), id))
    shell.print(f"revoked: {id}")
    return CommandResult({"revoked": id})


def list_(shell: Shell) -> CommandResult:
    """Show the keys that are valid."""
    with existing_store(shell, "there are no keys") as store:
        keyring = _keyring(store)
    keys = [
        {"id": k.id, "name": k.name, "tenant": k.tenant, "scopes": k.scopes, "time": k.time}
        | ({"limits": _given(k.limits)} if k.limits else {})
        | ({"skill": k.skill} if k.skill else {})
        for k in keyring.keys.values()
    ]
    rows = [
        (k.id, k.name, k.tenant or "-", ", ".join(k.scopes), local_time(k.time), _shown(k.limits))
        for k in keyring.keys.values()
    ]
    shell.table(["Key", "Name", "Tenant", "Scopes", "Made", "Limits"], rows, left=(0, 1, 2, 3, 4, 5))
    return CommandResult({"keys": keys, "guarded": keyring.guarded})


def _known_skill(shell: Shell, name: str) -> str:
    from escultor.skills.catalog import known_skills

    known = known_skills(shell.config.skills)
    if name not in known:
        allowed = ", ".join(known)
        raise InputError("there is no skill of this name", name, allowed, "list its file under `skills:`")
    return name


def _given(limits: KeyLimits) -> dict[str, Any]:
    return {name: value for name, value in asdict(limits).items() if value not in ((), None)}


def _shown(limits: KeyLimits | None) -> str:
    if limits is None:
        return ""
    given = _given(limits)
    if limits.expires is not None:
        given["expires"] = local_time(limits.expires)
    if limits.models:
        given["models"] = " ".join(limits.models)
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in given.items())


def _positive(option: str, value: float | None) -> float | None:
    if value is not None and not 0 < value < math.inf:
        raise InputError(f"{option} is no budget", value, "an amount of USD above 0")
    return value


def _moment(text: str) -> float:
    """Seconds since the epoch of a date, or a date and a time, in UTC where it names no offset."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InputError("--expires is no date", text, "such as 2027-01-31 or 2027-01-31T12:00Z") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _keyring(store: Store) -> Keyring:
    return Keyring(event for _, event in store.log.read(KeyEvent))
