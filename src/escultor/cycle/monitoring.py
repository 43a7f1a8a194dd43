"""One check of a store by the monitor: health, alerts, what they ask for, and the alerts sent out."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from escultor.config import Config
from escultor.cycle.canary_service import trial_stages
from escultor.errors import InputError
from escultor.feedback.conversion import convert
from escultor.feedback.selection import SelectionQuery
from escultor.monitor import notify, traces
from escultor.monitor.metrics import MetricsWindow, health
from escultor.monitor.rules import LOOKBACK_S
from escultor.monitor.service import MonitorReport, MonitorService
from escultor.monitor.triggers import OF_ANSWERS, Diagnosis, diagnose, plan
from escultor.serve.subjects import SubjectHasher
from escultor.skills.catalog import answer_schemas, load_skills
from escultor.store import Store, registry
from escultor.store.cycles import consumed
from escultor.types import Alert, Health, KeyCreated, KeyEvent, Plan

ENDPOINT_SKILLS = frozenset({"completion", "embedding"})  # of endpoints without a skill of the package


class Watch(NamedTuple):
    """The outcome of one check. `health` is that of the version asked about, `report` what was found of all;
    `undelivered` has a line for each receiver, of alerts or traces, that could not be told."""

    health: Health
    alerts: list[Alert]
    report: MonitorReport
    diagnosis: Diagnosis
    plan: Plan | None
    undelivered: list[str]


def check_config(config: Config) -> None:
    """Raises ConfigError or InputError for receivers of alerts or traces that cannot be reached by what is
    installed."""
    notify.check_receivers(config.monitor.notify)
    if config.monitor.otlp is not None:
        traces.require_exporter(config.monitor.otlp)


def monitor_of(store: Store, config: Config) -> MonitorService:
    """The monitor of a store. Raises as `check_config` does."""
    check_config(config)
    monitor = MonitorService(store, config.monitor, skills=load_skills(config.skills))
    _read_keys(monitor, config)
    return monitor


def _read_keys(monitor: MonitorService, config: Config) -> None:
    """Tell a monitor the subjects that stand for applications that do not name their users, and the skills
    that requests are filed under without naming one."""
    hash_of = SubjectHasher.for_store(monitor.store.root).subject
    keys = [e for _, e in monitor.store.log.read(KeyEvent) if isinstance(e, KeyCreated)]
    monitor.unnamed = frozenset(hash_of(f"key:{id}") for id in (None, *(key.id for key in keys)))
    monitor.names = ENDPOINT_SKILLS.union({config.serve.skill}, (key.skill for key in keys if key.skill))


def watch_once(
    store: Store, config: Config, now: float, since: float, monitor: MonitorService | None = None
) -> Watch:
    """Check a store once: record what changed, tell the receivers, and plan a cycle run where one is due.

    Raises InputError where no version answers and none is deployed.
    """
    monitor = monitor or monitor_of(store, config)
    _read_keys(monitor, config)  # with those that were made since the last look
    report = monitor.check(now)
    deployments = registry.read_deployments(store.log)
    deployed = registry.aliases(deployments)
    champion = deployed.get(registry.CHAMPION, "")
    version = champion or _busiest(report.window)
    if not version:
        raise InputError(
            "there is nothing to watch",
            "no champion, and no call in four weeks",
            remedy="send requests through `escultor serve`, or run `escultor promote MODEL`",
        )
    last_plan = store.log.last(Plan)
    candidate = deployed.get(registry.CANDIDATE) if trial_stages(deployments) else None
    firing = any(a.state == "firing" and a.rule in OF_ANSWERS for a in report.alerts)
    begin = max(now - LOOKBACK_S, last_plan.time if last_plan else 0.0)
    rows = new_rows(store, config, begin, now) if firing else {}
    diagnosis = diagnose(report.alerts, sum(rows.values()), champion, candidate)
    due = plan(diagnosis, last_plan, config.monitor, now)
    if due:
        skill = max(rows, key=lambda name: rows[name], default=None)
        due = replace(due, skill=skill or "")
        store.log.append(due)
    failures = notify.deliver(store, config.monitor.notify, now)
    if config.monitor.otlp is not None:
        failures += traces.export_new(store, config.monitor.otlp)
    state = health(version, report.window, since, now)
    return Watch(
        health=state,
        alerts=report.alerts,
        report=report,
        diagnosis=diagnosis,
        plan=due,
        undelivered=failures,
    )


def _busiest(window: MetricsWindow) -> str:
    totals: dict[str, int] = {}
    for (version, _), counts in window.calls.items():
        totals[version] = totals.get(version, 0) + counts.calls
    return max(totals, key=lambda v: (totals[v], v), default="")


def new_rows(store: Store, config: Config, since: float, now: float) -> dict[str | None, int]:
    """How many rows of every kind a cycle run for each configured skill could train on (None: for all
    feedback, where none is configured): those with feedback newer than `since` that no promoted model has
    learnt from. Prompts of registered suites do not count."""
    rows, schemas = {}, answer_schemas(config.skills)
    for skill in (*load_skills(config.skills),) or (None,):
        query = SelectionQuery(now, consumed(store, skill), since, skill=skill, schemas=schemas)
        rows[skill] = sum(convert(store, config.feedback, query).rows.values())
    return rows
