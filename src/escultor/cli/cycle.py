"""`cycle`: the loop from feedback to a deployed model, begun by a person or by itself."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any

from typer import Argument, Option

from escultor.cli.lookup import existing_store
from escultor.cli.output import NOT_PROMOTED, CommandResult, Shell, local_time
from escultor.cli.progress import LiveProgress
from escultor.cli.verdicts import show_verdict
from escultor.cycle.api import EvolutionCycle, parse_since, user_name
from escultor.cycle.approval import KEY_ENV
from escultor.cycle.checkpoints import require_champion
from escultor.cycle.cycle_triggers import next_time, schedule_of, set_schedule
from escultor.cycle.evaluation_service import skill_of_run
from escultor.errors import EscultorError, InputError
from escultor.skills.catalog import load_skills
from escultor.store.cycles import GOES_ON, RecordedCycle, open_cycle, recorded_cycles
from escultor.store.leases import holder

FeedbackSinceOption = Annotated[
    str | None,
    Option(help="daily, weekly, monthly or a date; default: what no promoted model has learnt from yet."),
]
ComparedSuiteOption = Annotated[
    str | None,
    Option(
        metavar="NAME|FILE",
        help="The suite to compare the new model and the champion on; default: the skill's, else the one "
        "that the champion was last measured on.",
    ),
]
SkillOption = Annotated[str | None, Option(help="The skill; default: the only one that is configured.")]
NOTHING = "there is no cycle"
TEND_S = 5.0  # between looks at the processes of open cycles


def cycle(
    shell: Shell,
    since: FeedbackSinceOption = None,
    suite: ComparedSuiteOption = None,
    skill: SkillOption = None,
) -> CommandResult:
    """Train the next model on feedback, and deploy it if the gate promotes it; exit code 3 if not.

    The same as `cycle run`. See also `cycle status`, `approve`, `reject`, `resume`, `cancel`, `schedule` and
    `history`, each with --help.
    """
    return run(shell, since, suite, skill)


def run(
    shell: Shell,
    since: FeedbackSinceOption = None,
    suite: ComparedSuiteOption = None,
    skill: SkillOption = None,
    follow: Annotated[
        bool, Option("--follow", help="Watch, and begin cycles by schedule, feedback and alerts, for ever.")
    ] = False,
    every: Annotated[float, Option(help="With --follow: seconds between looks.")] = 60.0,
) -> CommandResult:
    """Run a cycle: collect, convert, train, evaluate, gate, and deploy or wait for approval; exit code 3
    where the gate does not promote. One that was cut short goes on."""
    if follow:
        if since or suite or skill or every <= 0:
            got = "--since, --suite or --skill" if every > 0 else f"--every {every}"
            raise InputError("--follow runs the cycles of all skills", got, "--every above 0")
        return _follow(shell, every)
    begin = parse_since(since)
    with existing_store(shell, "there is no feedback to learn from") as store:
        require_champion(store)
        name = skill_of_run(shell.config, skill) or ""
        if (other := open_cycle(store, name)) is not None and other.state in GOES_ON:
            shell.print(f"{other.id} goes on as it was begun: {other.last.reason}", "dim")
    with LiveProgress() as live:
        turn = EvolutionCycle(shell.config, live, skill)
        verdict = turn.run(begin, suite)
    result, last = show_verdict(shell, verdict), turn.status()[-1]
    shell.print(f"{last.state}: {last.last.reason}", "dim")
    return CommandResult({**result.data, "cycle": last.id, "state": last.state}, result.code)


def status(shell: Shell, skill: SkillOption = None) -> CommandResult:
    """Where the cycles of each skill stand, what they wait for, and when the next one is due."""
    with existing_store(shell, NOTHING) as store:
        last: dict[str, RecordedCycle] = {c.skill: c for c in recorded_cycles(store, skill)}
        schedules, rows = {}, []
        for name in [skill] if skill else [*load_skills(shell.config.skills), ""]:
            if (schedule := schedule_of(store, name)) is not None:
                schedules[name] = {"when": schedule.when, "next": next_time(schedule, time.time())}
        workers = {name: holder(store, f"cycle of {name or 'all feedback'}") for name in last}
        pages = store.root / "verdicts"
    for name, found in sorted(last.items()):
        page = pages / found.verdict / "verdict.html" if found.verdict else ""
        rows.append((name or "(all)", found.id, found.state, local_time(found.last.time), found.last.reason))
        if page:
            rows.append(("", "", "", "", page))
        if workers[name]:
            rows.append(("", "", "", "", f"at work: {workers[name]}"))
        elif found.state in GOES_ON:
            rows.append(("", "", "", "", "nobody is at work on it: escultor cycle resume"))
    if rows:
        shell.table(["Skill", "Cycle", "State", "Since", "Why"], rows, left=(0, 1, 2, 3, 4))
    else:
        shell.print("there was no cycle yet: escultor cycle run")
    for name, each in schedules.items():
        shell.print(f"{name or '(all)'}: next scheduled {local_time(each['next'])} ({each['when']} UTC)")
    cycles = [_data(found) | {"worker": workers[found.skill]} for found in last.values()]
    return CommandResult({"cycles": cycles, "schedules": schedules})


def approve(
    shell: Shell,
    reason: Annotated[str, Option(help="Why.")] = "approved by a person",
    skill: SkillOption = None,
) -> CommandResult:
    """Approve the waiting candidate: it is tried among people, then promoted or rolled back. Your key of the
    scope `approve` is read from ESCULTOR_APPROVAL_KEY."""
    with LiveProgress() as live:
        key = os.environ.get(KEY_ENV)
        return _show(shell, EvolutionCycle(shell.config, live, skill).decide("approved", key, reason))


def reject(
    shell: Shell,
    reason: Annotated[str, Option(help="Why; it is recorded.")],
    skill: SkillOption = None,
) -> CommandResult:
    """Reject the waiting candidate, which ends its cycle. Needs a key as `cycle approve`."""
    key = os.environ.get(KEY_ENV)
    return _show(shell, EvolutionCycle(shell.config, None, skill).decide("rejected", key, reason))


def resume(
    shell: Shell,
    skill: SkillOption = None,
    limits: Annotated[
        bool, Option("--limits", help="With the priority, threads and memory of `cycle:`.")
    ] = False,
) -> CommandResult:
    """Take the open cycle as far as it can go now: after an interruption, or one look at its trial."""
    if limits:
        from escultor.cycle.daemon import limit_process

        limit_process(shell.config)
    with existing_store(shell, NOTHING), LiveProgress() as live:
        return _show(shell, EvolutionCycle(shell.config, live, skill).resume())


def cancel(
    shell: Shell,
    reason: Annotated[str, Option(help="Why; it is recorded.")],
    skill: SkillOption = None,
) -> CommandResult:
    """End the open cycle, and the trial of its candidate."""
    with existing_store(shell, NOTHING):
        return _show(shell, EvolutionCycle(shell.config, None, skill).cancel(reason, user_name()), code=0)


def schedule(
    shell: Shell,
    when: Annotated[
        str | None,
        Argument(help="daily, weekly, monthly (3:00 UTC), five fields of cron, or off; none: show it."),
    ] = None,
    skill: SkillOption = None,
) -> CommandResult:
    """Set when cycles of a skill begin by themselves, under `escultor cycle run --follow`."""
    name, now = skill_of_run(shell.config, skill) or "", time.time()
    with existing_store(shell, NOTHING) as store:
        found = schedule_of(store, name) if when is None else set_schedule(store, name, when, now)
    cron = found.when if found is not None else ""
    due = next_time(found, now) if found is not None and cron else None
    shell.print(f"next: {local_time(due)} ({cron} UTC)" if due is not None else "nothing is scheduled")
    return CommandResult({"skill": name, "when": cron, "next": due})


def history(shell: Shell, skill: SkillOption = None) -> CommandResult:
    """All cycles with what became of them, and what was not begun and why."""
    with existing_store(shell, NOTHING) as store:
        found = recorded_cycles(store, skill)
    rows = [
        (local_time(event.time), each.skill or "(all)", each.id, event.state, event.by, event.reason)
        for each in found
        for event in each.events
    ]
    shell.table(["When", "Skill", "Cycle", "State", "By", "Why"], rows, left=(0, 1, 2, 3, 4, 5))
    return CommandResult({"cycles": [_data(each) for each in found]})


def _data(found: RecordedCycle) -> dict[str, Any]:
    from escultor.ids import plain

    own = {"cycle": found.id, "skill": found.skill, "state": found.state, "reason": found.last.reason}
    made = {"candidate": found.candidate, "verdict": found.verdict}
    return own | made | {"events": [plain(event) for event in found.events]}


def _show(shell: Shell, found: RecordedCycle, code: int | None = None) -> CommandResult:
    shell.print(f"{found.id}: {found.state}: {found.last.reason}", "bold")
    failed = found.state in ("not_promoted", "rolled_back", "superseded")
    return CommandResult(_data(found), (NOT_PROMOTED if failed else 0) if code is None else code)


def _follow(shell: Shell, every: float) -> CommandResult:
    """Run the daemon until it is interrupted; processes that it started end with it."""
    from escultor.cycle.daemon import CycleDaemon
    from escultor.cycle.monitor_loop import MonitorLoop

    def command_of(skill: str) -> Sequence[str]:
        words = [sys.executable, "-m", "escultor", "cycle", "resume", "--limits"]
        words += ["--skill", skill] if skill else []
        words += ["--config", str(shell.config_file)] if shell.config_file else []
        words += [word for each in shell.overrides or () for word in ("--set", each)]
        return [*words, "--store", shell.store_url]

    monitor = MonitorLoop(shell.config, shell.print)
    with monitor.open(partial(existing_store, shell, "there is nothing to watch"), TEND_S) as store:
        daemon = CycleDaemon(store, shell.config, command_of, shell.print, monitor)
        try:
            while True:
                end = time.monotonic() + every
                _try(shell, lambda: daemon.tick(time.time()))
                while (left := end - time.monotonic()) > 0:
                    time.sleep(min(left, TEND_S))
                    _try(shell, daemon.tend)
        finally:
            daemon.stop()


def _try(shell: Shell, look: Callable[[], object]) -> None:
    """Look, and come back to it later where the database, the disk or a file is away."""
    try:
        look()
    except (EscultorError, OSError) as error:  # a skill's file too may be away, and written again
        shell.print(f"tried again soon: {error}")
