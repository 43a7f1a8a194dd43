"""The loop that runs unattended: it watches, diagnoses, begins cycles, starts their processes, and takes
approved candidates through their trials."""

from __future__ import annotations

import os
import shlex
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from escultor.config import Config
from escultor.config.cycle import COMMAND
from escultor.cycle.canary_service import CanaryService, end_trial
from escultor.cycle.cycle_triggers import Trigger, due, record_refusal, refusal
from escultor.cycle.lifecycle import CycleRunner, begin, lease_of
from escultor.cycle.live_metrics import live_metrics
from escultor.cycle.monitor_loop import MonitorLoop
from escultor.cycle.monitoring import Watch
from escultor.cycle.workflow import Progress
from escultor.errors import InputError
from escultor.ids import new_id
from escultor.skills.catalog import load_skills
from escultor.store import Store
from escultor.store.cycles import (
    RecordedCycle,
    change,
    compute_seconds,
    open_cycle,
    record_event,
    recorded_cycle,
    recorded_cycles,
)
from escultor.store.leases import holder
from escultor.types import Step

MAX_FAILURES = 5  # of a cycle's processes in a row, without an error that ends the cycle by itself
FIRST_WAIT_S, MAX_WAIT_S = 2.0, 3600.0  # before the next try: ten times longer after each failure
LOST = "lost"  # the step of time that was spent and led to no result


@dataclass(slots=True)
class _Worker:
    """The process of an open cycle, and how often one of them ended without taking the cycle further."""

    cycle: str
    process: subprocess.Popen[bytes] | None = None
    failures: int = 0
    steps: int = 0  # in the log when it was started
    began: float = 0.0  # time of that
    not_before: float = 0.0


@dataclass(slots=True)
class CycleDaemon:
    """Follows one store. `command_of` gives the command that goes on with the open cycle of a skill; it is
    started by the launcher of the configuration. `tell` receives a line for what was done."""

    store: Store
    config: Config
    command_of: Callable[[str], Sequence[str]]
    tell: Callable[[str], None] = lambda line: None
    monitor: MonitorLoop | None = None
    _workers: dict[str, _Worker] = field(default_factory=dict)  # by skill
    _canary: CanaryService | None = None

    def tick(self, now: float) -> Watch | None:
        """Look once, and do what is due. None where there is nothing to watch yet."""
        self.monitor = self.monitor or MonitorLoop(self.config, self.tell)
        watch = self.monitor.look(self.store, now)
        is_bad = watch is not None and watch.diagnosis.remedy == "rollback"
        if watch is not None and is_bad and end_trial(self.store, f"monitor: {watch.diagnosis.reason}"):
            self.tell(f"rolled back: {watch.diagnosis.reason}")
        for skill in self._skills():
            self._begin_due(skill, watch, now)
        for skill in [*self._workers]:
            self._tell_failure(skill)
        for cycle in self._open_cycles():
            self._go_on(cycle)
        return watch

    def tend(self) -> None:
        """See to it that each cycle that is to be computed has a process, here or elsewhere: between looks,
        so that a worker that died is replaced soon."""
        for cycle in self._open_cycles():
            if cycle.state == "running":
                self._work(cycle)

    def _skills(self) -> list[str]:
        return [*load_skills(self.config.skills)] or [""]

    def _open_cycles(self) -> list[RecordedCycle]:
        """Also of skills that are no longer configured: their trials end all the same."""
        return [cycle for cycle in recorded_cycles(self.store) if cycle.is_open]

    def stop(self) -> None:
        """End the processes that were started; their cycles can be gone on with."""
        for worker in self._workers.values():
            if worker.process is not None and worker.process.poll() is None:
                worker.process.terminate()
                worker.process.wait()

    def _begin_due(self, skill: str, watch: Watch | None, now: float) -> None:
        for trigger in due(self.store, self.config, skill, watch, now):
            why = refusal(self.store, self.config, skill, watch, now) or self._begin(trigger)
            if why is not None and record_refusal(self.store, trigger, why):
                self.tell(f"refused: {trigger.reason}: {why}")

    def _begin(self, trigger: Trigger) -> str | None:
        """Begin a cycle; why it cannot be, else None. Another process that is at it may take the cause."""
        lease = lease_of(self.store, trigger.skill)
        if holder(self.store, lease.name) is not None:
            return None
        try:
            with lease:
                begin(self.store, self.config, trigger.cycle, trigger.skill, trigger.reason)
        except InputError as error:
            return str(error)
        self.tell(f"begun: {trigger.cycle}: {trigger.reason}")
        return None

    def _tell_failure(self, skill: str) -> None:
        """Say once that the cycle of a process of this daemon has failed."""
        worker = self._workers[skill]
        if worker.process is not None and worker.process.poll() is None:
            return
        if (cycle := recorded_cycle(self.store, worker.cycle)).state == "failed":
            del self._workers[skill]
            self.tell(f"failed: {cycle.id}: {cycle.last.reason}")

    def _go_on(self, cycle: RecordedCycle) -> None:
        if cycle.state == "running":
            self._work(cycle)
        else:  # waiting: who could not be asked before is asked again
            self._canary = self._canary or CanaryService(
                self.store, self.config.canary, live_metrics(self.config.skills)
            )
            progress = _NoteProgress(self.tell)
            try:
                with lease_of(self.store, cycle.skill) as lease:
                    runner = CycleRunner(self.store, self.config, progress, lease.check, self._canary)
                    runner.go_on(open_cycle(self.store, cycle.skill) or cycle)
            except InputError as error:
                self.tell(str(error))  # another process is at it

    def _work(self, cycle: RecordedCycle) -> None:
        """See to it that a process computes the cycle."""
        worker = self._workers.get(cycle.skill)
        if worker is None or worker.cycle != cycle.id:
            worker = self._workers[cycle.skill] = _Worker(cycle.id)
        if worker.process is not None:
            if worker.process.poll() is None:
                return
            code, worker.process = worker.process.returncode, None
            self._note_failure(worker, cycle, f"ended with code {code}")
            self._note_lost_time(worker)
        is_held = holder(self.store, lease_of(self.store, cycle.skill).name) is not None
        if not is_held and time.monotonic() >= worker.not_before and worker.failures < MAX_FAILURES:
            command = launch_command(self.config.cycle.launcher, self.command_of(cycle.skill))
            worker.steps, worker.began = self.store.log.count(Step), time.time()
            try:
                worker.process = subprocess.Popen(command, env=os.environ | _threads(self.config))
            except OSError as error:
                self._note_failure(worker, cycle, f"could not be started: {error}")
            else:
                self.tell(f"started: process {worker.process.pid} for {cycle.id}")

    def _note_lost_time(self, worker: _Worker) -> None:
        """Record what an ended process took beyond its finished steps, which the budgets count too."""
        now = time.time()
        seconds = now - worker.began - compute_seconds(self.store, worker.began)
        if seconds > 0:
            self.store.log.append(Step(new_id("lost"), now, LOST, round(seconds, 3), {"cycle": worker.cycle}))

    def _note_failure(self, worker: _Worker, cycle: RecordedCycle, what: str) -> None:
        """A process has ended and the cycle is as it was: try again later, at last give up."""
        worker.failures = 1 if self.store.log.count(Step) > worker.steps else worker.failures + 1
        worker.not_before = time.monotonic() + min(FIRST_WAIT_S * 10 ** (worker.failures - 1), MAX_WAIT_S)
        self.tell(f"the process of {cycle.id} {what} ({worker.failures} of {MAX_FAILURES})")
        if worker.failures >= MAX_FAILURES:
            reason = f"{MAX_FAILURES} times without a result its process {what}"
            record_event(self.store, change(cycle, "failed", reason))


class _NoteProgress(Progress):
    """Passes notes on."""

    def __init__(self, tell: Callable[[str], None]):
        self.tell = tell

    def note(self, text: str) -> None:
        self.tell(text)


def launch_command(launcher: str, command: Sequence[str]) -> list[str]:
    """The launcher's words with the command in the place of {command}: as words of its own, or as one text
    within a word (`--wrap={command}`)."""
    words: list[str] = []
    for word in shlex.split(launcher):
        words += command if word == COMMAND else [word.replace(COMMAND, shlex.join(command))]
    return words


def _threads(config: Config) -> dict[str, str]:
    """The environment that limits the threads of libraries, which read it when they are loaded."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")
    threads = config.cycle.threads
    return {} if threads is None else dict.fromkeys(names, str(threads))


def limit_process(config: Config) -> None:
    """Give this process the priority and the limits of the configuration's `cycle` section. Raises InputError
    for a limit of memory on a platform without one."""
    limits = config.cycle
    if hasattr(os, "setpriority"):
        now = os.getpriority(os.PRIO_PROCESS, 0)
        os.setpriority(os.PRIO_PROCESS, 0, max(now, limits.nice))
    if limits.threads is not None:
        import torch

        torch.set_num_threads(limits.threads)
    if limits.memory_gb is not None:
        try:
            import resource
        except ImportError as error:
            raise InputError(
                "cycle.memory_gb cannot act on this platform", limits.memory_gb, "null"
            ) from error
        most = int(limits.memory_gb * 1e9)
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
