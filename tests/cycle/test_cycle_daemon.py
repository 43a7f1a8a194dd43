"""The loop that runs unattended: causes, limits, diagnosis, processes."""

import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from cycle_store import config_at, fill
from hypothesis import given, settings
from hypothesis import strategies as st

from escultor.config import Config
from escultor.cycle import cycle_triggers, daemon, monitor_loop
from escultor.cycle.api import EvolutionCycle
from escultor.cycle.cycle_triggers import due, next_time, refusal, schedule_of, set_schedule
from escultor.cycle.daemon import CycleDaemon, launch_command
from escultor.errors import ConfigError, InputError
from escultor.monitor.triggers import Diagnosis
from escultor.store import open_store, registry
from escultor.store.cycles import recorded_cycles
from escultor.store.leases import holder
from escultor.types import Alert, CycleEvent, CycleSchedule, Estimate, Plan, Step

NOW = 1_790_000_000.0  # 2026-09-21 13:33 UTC, a Monday
DAY = 86_400.0


@pytest.fixture(scope="session")
def begun(tmp_path_factory):
    folder = tmp_path_factory.mktemp("begun")
    fill(config_at(folder), folder)
    return folder / "store"


@pytest.fixture
def config(begun, tmp_path):
    shutil.copytree(begun, tmp_path / "store")
    return config_at(tmp_path)


@pytest.fixture
def store(config):
    with open_store(config.store.url) as opened:
        yield opened


def with_limits(config: Config, **limits: object) -> Config:
    values = config.model_dump() | {"cycle": config.cycle.model_dump() | limits}
    return Config.model_validate(values)


def ended(store, number: int, when: float, by: str = "", skill: str = "animal") -> None:
    id = f"cycle-{number}"
    store.log.append(
        CycleEvent(f"{id}-0", when, id, skill, "running", reason="begun", by=by),
        CycleEvent(f"{id}-1", when, id, skill, "not_promoted", reason="no better"),
    )


def firing(rule: str, version: str = "") -> Alert:
    return Alert(f"alert-{rule}", NOW, rule, "firing", Estimate(rule, 1, 1, 1, 9), 0.1, f"{rule}!", version)


# --- schedules --------------------------------------------------------------------------------


def test_a_schedule_is_due_once_at_each_of_its_times(store, config):
    assert schedule_of(store, "animal") is None
    set_schedule(store, "animal", "monthly", NOW)
    schedule = schedule_of(store, "animal")
    assert schedule.when == "0 3 1 * *"
    first = next_time(schedule, NOW)
    assert time.gmtime(first)[:5] == (2026, 10, 1, 3, 0)
    assert list(due(store, config, "animal", None, first - 1)) == []
    (trigger,) = due(store, config, "animal", None, first)
    assert list(due(store, config, "animal", None, first + 20 * DAY)) == [trigger]
    store.log.append(
        CycleEvent(f"{trigger.cycle}-0", first, trigger.cycle, "animal", "running", reason="x"),
        CycleEvent(f"{trigger.cycle}-1", first, trigger.cycle, "animal", "failed", reason="x"),
    )
    assert list(due(store, config, "animal", None, first + DAY)) == []
    (second,) = due(store, config, "animal", None, first + 31 * DAY)
    assert second.cycle != trigger.cycle
    set_schedule(store, "animal", "off", first + 31 * DAY)
    assert list(due(store, config, "animal", None, first + 99 * DAY)) == []


@pytest.mark.parametrize(
    "when",
    [
        "yearlyish",
        "* * * *",
        "61 * * * *",
        "0 0 0 1 * *",
        "@daily",
        "",
        "R R * * *",
        "0 R(1-5) * * *",
        "0 3 " + "1," * 10**5 + "1 * *",
    ],
    ids=lambda when: when[:20],
)
def test_what_is_no_schedule_is_refused(store, when):
    with pytest.raises(InputError, match="schedule cannot be read"):
        set_schedule(store, "animal", when or " ", NOW)


def test_a_date_that_never_comes_is_no_schedule(store):
    with pytest.raises(InputError, match="the schedule has no time"):
        set_schedule(store, "animal", "0 0 31 2 *", NOW)
    assert schedule_of(store, "animal") is None


FIELDS = [st.one_of(st.just("*"), st.integers(*ends).map(str), st.integers(1, 9).map("*/{}".format))
          for ends in ((0, 59), (0, 23), (1, 28), (1, 12), (0, 6))]  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(st.tuples(*FIELDS).map(" ".join), st.integers(1_500_000_000, 2_500_000_000))
def test_at_any_moment_a_schedule_lies_between_its_last_and_its_next_time(when, now):
    schedule = CycleSchedule("s", 0.0, "", when)
    before, after = cycle_triggers.last_time(schedule, now), next_time(schedule, now)
    assert before <= now < after
    assert next_time(schedule, before) == after
    assert cycle_triggers.last_time(schedule, after) == after
    assert cycle_triggers.last_time(schedule, after - 1) == before


# --- other causes -----------------------------------------------------------------------------


def test_enough_new_feedback_is_a_cause_once_for_each_cycle(store, config):
    asked = with_limits(config, new_rows=20)
    (trigger,) = due(store, asked, "animal", None, NOW)
    assert trigger.reason == "at least 20 new rows of feedback"
    assert list(due(store, config, "animal", None, NOW)) == []
    assert list(due(store, with_limits(config, new_rows=10_000), "animal", None, NOW)) == []
    ended(store, 1, NOW)  # all feedback is older
    assert list(due(store, asked, "animal", None, NOW + DAY)) == []


def test_a_plan_of_the_monitor_is_a_cause_for_a_day(store, config):
    store.log.append(Plan("plan-1", NOW, ("train",), "alert", "thumbs down", skill="animal"))
    (trigger,) = due(store, config, "animal", None, NOW + 60)
    assert trigger.reason == "thumbs down"
    assert list(due(store, config, "animal", None, NOW + 2 * DAY)) == []


# --- limits -----------------------------------------------------------------------------------


def test_each_limit_refuses_with_its_reason(store, config):
    assert refusal(store, config, "animal", None, NOW) is None
    ended(store, 1, NOW - 3600)
    assert "cycle.cooldown_s" in refusal(store, config, "animal", None, NOW)
    free = with_limits(config, cooldown_s=0, per_day=2)
    assert refusal(store, free, "animal", None, NOW) is None
    ended(store, 2, NOW - 60, by="Ana")  # a person's cycles count towards no number a day
    assert refusal(store, free, "animal", None, NOW) is None
    ended(store, 3, NOW - 60, skill="another")
    assert "cycle.per_day is used up: 2" in refusal(store, free, "animal", None, NOW)
    store.log.append(Step("k", NOW - DAY, "train", 2 * 3600.0, {}))
    few = with_limits(config, cooldown_s=0, compute_hours=1.5)
    assert "cycle.compute_hours is used up" in refusal(store, few, "animal", None, NOW)
    assert refusal(store, with_limits(few, compute_hours=2.5), "animal", None, NOW) is None
    dear = with_limits(config, cooldown_s=0, usd=5.9, hourly_price_usd=3.0)
    assert "cycle.usd is used up: 6 of 5.9 USD in 30 days" in refusal(store, dear, "animal", None, NOW)
    assert refusal(store, with_limits(dear, usd=6.1), "animal", None, NOW) is None
    store.log.append(CycleEvent("c-0", NOW, "c", "animal", "running", reason="begun"))
    assert "c is open (running)" in refusal(store, free, "animal", None, NOW)


class Watched:
    """A look of the monitor, as a test wants it."""

    def __init__(self, remedy="none", alerts=()):
        self.alerts, self.plan = list(alerts), None
        self.diagnosis = Diagnosis(remedy, alerts[0] if alerts else None, "why")


def test_nothing_is_trained_while_the_service_itself_is_in_trouble(store, config):
    why = refusal(store, config, "animal", Watched("person", [firing("errors")]), NOW)
    assert "the alert errors fires" in why
    assert refusal(store, config, "animal", Watched("train", [firing("thumbs_down")]), NOW) is None


# --- the daemon -------------------------------------------------------------------------------

RESUME = "import sys; from escultor import EvolutionCycle; from cycle_store import config_at; "
RESUME += "from pathlib import Path; EvolutionCycle(config_at(Path(sys.argv[1]))).resume()"


@pytest.fixture
def follow(store, config, monkeypatch):
    """A daemon, its lines, and what its monitor is to find."""
    lines, watched = [], [Watched()]
    monkeypatch.setattr(monitor_loop, "watch_once", lambda *_: watched[0])

    def make(command=(sys.executable, "-c", "pass"), **limits):
        made = CycleDaemon(store, with_limits(config, **limits), lambda skill: command, lines.append)
        return made, lines, watched

    return make


def test_a_refusal_is_recorded_once_and_its_cause_is_taken_up_when_it_may(store, follow, config):
    ended(store, 1, NOW - 3600)
    store.log.append(Plan("plan-1", NOW, ("train",), "alert", "thumbs down", skill="animal"))
    loop, lines, _ = follow()
    for k in range(3):
        loop.tick(NOW + k)
    refused = recorded_cycles(store)[-1]
    assert [event.state for event in refused.events] == ["refused"]
    assert "thumbs down: the last cycle was begun less than cycle.cooldown_s ago" in refused.last.reason
    assert sum("refused" in line for line in lines) == 1
    loop, lines, _ = follow(cooldown_s=0)
    loop.tick(NOW + 9)
    loop.stop()
    assert [event.state for event in recorded_cycles(store)[-1].events] == ["refused", "running"]


def test_a_bad_candidate_is_rolled_back_and_nothing_is_trained(store, follow):
    current = registry.current(registry.read_deployments(store.log))
    first = current.aliases[registry.CHAMPION]
    store.log.append(registry.trial("canary", "bad", 0.1, current))
    loop, _, watched = follow()
    watched[0] = Watched("rollback", [firing("thumbs_down", "bad")])
    loop.tick(NOW)
    now = registry.current(registry.read_deployments(store.log))
    assert (now.aliases[registry.CHAMPION], now.shares) == (first, {first: 1.0})
    assert now.because == "monitor: why"
    assert recorded_cycles(store) == []


def wait(loop, done, seconds=120.0):
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "it did not happen"
        loop.tick(NOW)
        time.sleep(0.1)


def test_a_due_cycle_is_computed_by_a_process_of_its_own_up_to_the_person(store, follow, tmp_path):
    store.log.append(Plan("plan-1", NOW, ("train",), "alert", "thumbs down", skill="animal"))
    here = __file__.rsplit("/", 1)[0]
    code = f"import sys; sys.path[:0] = [{here!r}, {here.rsplit('/', 1)[0]!r}]; {RESUME}"
    loop, lines, _ = follow(
        (sys.executable, "-c", code, str(tmp_path)), threads=1, launcher="env ELSEWHERE=1 {command}"
    )
    wait(loop, lambda: recorded_cycles(store) and recorded_cycles(store)[-1].state == "waiting")
    assert sum(line.startswith("started") for line in lines) == 1
    assert store.log.count(Step) > 3
    loop.stop()
    assert holder(store, "cycle of animal") is None


def test_a_process_that_only_dies_is_given_up_and_its_time_counts(store, follow, config, monkeypatch):
    monkeypatch.setattr(daemon, "MAX_WAIT_S", 0.0)
    store.log.append(Plan("plan-1", NOW, ("train",), "alert", "thumbs down", skill="animal"))
    loop, _, _ = follow((sys.executable, "-c", "raise SystemExit(9)"))
    wait(loop, lambda: recorded_cycles(store) and recorded_cycles(store)[-1].state == "failed")
    reason = recorded_cycles(store)[-1].last.reason
    assert reason == "5 times without a result its process ended with code 9"
    lost = [step.seconds for _, step in store.log.read(Step)]
    assert len(lost) == 5
    assert min(lost) > 0.0
    assert "cycle.compute_hours is used up" in refusal(
        store, with_limits(config, cooldown_s=0, compute_hours=sum(lost) / 3600), "animal", None, time.time()
    )


def test_a_launcher_that_is_not_there_is_told_and_given_up(store, follow, monkeypatch):
    monkeypatch.setattr(daemon, "MAX_WAIT_S", 0.0)
    store.log.append(Plan("plan-1", NOW, ("train",), "alert", "thumbs down", skill="animal"))
    loop, lines, _ = follow(launcher="no-such-launcher {command}")
    wait(loop, lambda: recorded_cycles(store) and recorded_cycles(store)[-1].state == "failed")
    assert "could not be started" in recorded_cycles(store)[-1].last.reason
    assert sum("no-such-launcher" in line for line in lines) >= 5


def test_a_trial_of_a_skill_that_is_no_longer_configured_is_followed_to_its_end(store, follow, config):
    current = registry.current(registry.read_deployments(store.log))
    first = current.aliases[registry.CHAMPION]
    store.log.append(
        registry.trial("canary", "bad", 0.1, current),
        CycleEvent("c-0", NOW, "c", "removed", "running", reason="x", champion=first),
        CycleEvent("c-1", NOW, "c", "removed", "trial", reason="x", candidate="bad"),
    )
    loop, _, watched = follow()
    watched[0] = Watched("rollback", [firing("thumbs_down", "bad")])
    loop.tick(NOW)
    assert recorded_cycles(store)[-1].state == "rolled_back"
    event = CycleEvent("d-0", NOW, "d", "removed", "running", reason="x", champion=first)
    store.log.append(event)
    assert EvolutionCycle(config).cancel("no longer wanted").id == "d"


FAILING = """
import sys
from escultor.store import open_store
from escultor.store.cycles import change, open_cycle, record_event
with open_store(sys.argv[1]) as store:
    record_event(store, change(open_cycle(store, "animal"), "failed", "twice: RuntimeError: no such kernel"))
"""


def test_a_cycle_that_failed_is_told_and_not_tried_again(store, follow, config):
    store.log.append(Plan("plan-1", NOW, ("train",), "alert", "thumbs down", skill="animal"))
    loop, lines, _ = follow((sys.executable, "-c", FAILING, config.store.url))
    wait(loop, lambda: any(line.startswith("failed: ") for line in lines))
    for _ in range(3):
        loop.tick(NOW)
    assert sum(line.startswith("started") for line in lines) == 1
    assert [line.partition(": ")[2].partition(": ")[2] for line in lines if line.startswith("failed: ")] == [
        "twice: RuntimeError: no such kernel"
    ]
    loop.stop()


# --- the process that trains ------------------------------------------------------------------


def test_a_launcher_takes_the_command_as_words_or_as_one_text():
    command = ["escultor", "cycle", "resume", "--skill", "a b"]
    assert launch_command("{command}", command) == command
    assert launch_command("srun --gpus=1 {command}", command) == ["srun", "--gpus=1", *command]
    wrapped = launch_command('sbatch --wait --wrap="{command}"', command)
    assert wrapped == ["sbatch", "--wait", "--wrap=escultor cycle resume --skill 'a b'"]
    for unusable in ("srun", "srun --wrap='{command}", "srun {com\\mand}"):
        with pytest.raises((ConfigError, ValueError), match="launcher"):
            Config.model_validate({"cycle": {"launcher": unusable}})


@given(st.text(), st.text())
def test_no_word_of_a_command_comes_apart_in_a_shell_s_text(skill, store):
    command = ["escultor", "--skill", skill, "--store", store]
    (_, text) = launch_command("--wrap={command} {command}", command)[0].split("=", 1)
    assert shlex.split(text) == command


def test_every_launcher_on_the_page_takes_the_command_whole():
    page = (Path(__file__).parents[2] / "docs" / "cycle.md").read_text()
    lines = re.findall(r"^    (launcher: .*)$", page, re.MULTILINE)
    command = ["escultor", "cycle", "resume", "--skill", "a b"]
    assert len(lines) >= 5
    for line in lines:
        launcher = Config.model_validate({"cycle": yaml.safe_load(line)}).cycle.launcher
        words = launch_command(launcher, command)
        assert "a b" in words or any(word.endswith(shlex.join(command)) for word in words), line


LIMITED = """
import os, resource, sys
from escultor.config import Config
from escultor.cycle.daemon import limit_process
limit_process(Config.model_validate({"cycle": {"nice": 7, "threads": 1, "memory_gb": 0.5}}))
import torch
assert os.getpriority(os.PRIO_PROCESS, 0) >= 7 and torch.get_num_threads() == 1
try:
    bytearray(10**9)
except MemoryError:
    print("limited")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such limit of memory")
def test_the_limits_of_the_process_act():
    done = subprocess.run([sys.executable, "-c", LIMITED], capture_output=True, text=True, timeout=120)
    assert done.stdout == "limited\n", done.stderr
