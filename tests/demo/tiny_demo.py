"""The demonstration on a tiny model and a part of the standard library, for the tests. Run as a program:

    python tiny_demo.py

reads lines [OUT, STORE, KILL_AT, STEP] of JSON. Each is a demonstration in a process of its own, forked once
everything is imported: it writes one JSON object to the file OUT, and its exit code is printed. With KILL_AT
it kills itself (SIGKILL) when that phase begins, or when its training reaches STEP.
"""

import json
import os
import signal
import sys
import traceback
from pathlib import Path
from types import SimpleNamespace

import torch

from escultor.config import Config, load_config
from escultor.cycle.workflow import Progress
from escultor.demo import run, users
from escultor.demo.python_docs import package_roots
from escultor.demo.report import as_json, as_report
from escultor.train import loop

PACKAGES = {
    "json",
    "email",
    "http",
    "logging",
    "argparse",
    "asyncio",
    "unittest",
    "xml",
    "statistics",
    "importlib",
    "difflib",
    "wsgiref",
}
SIZES = run.DemoSizes(sft_examples=40, traffic_prompts=24, answers_per_prompt=3, student_examples=8)
SHAPE = {
    "vocabulary": 400,
    "hidden_size": 32,
    "layers": 2,
    "heads": 2,
    "kv_heads": 1,
    "intermediate_size": 48,
    "context": 2048,
    "max_length": 256,
    "batch_size": 4,
    "max_steps": 6,
}
SMALL = {"max_steps": 4, "batch_size": 4, "max_length": 1024, "dtype": "float32"}


class Anything:
    """A skill that accepts every answer."""

    output = SimpleNamespace(accepts=lambda answer: True)


class Suicidal(Progress):
    """Kills its own process at a named place, without a chance to tidy up."""

    def __init__(self, name: str, step: int):
        self.name, self.step, self.current = name, step, ""

    def phase(self, name: str) -> None:
        self.current = name
        if name == self.name and not self.step:
            os.kill(os.getpid(), signal.SIGKILL)

    def training(self, report) -> None:
        if self.current == self.name and report.step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def config() -> Config:
    data = load_config(run.CONFIG).model_dump()
    data["pretrain"] |= SHAPE | {"dtype": "float32"}
    for section in ("sft", "dpo", "distillation"):
        data[section] |= SMALL
    data["distillation"] |= {"layers": (0, 1), "intermediate_size": 16}
    data["evaluation"] |= {"items": 12, "max_new_tokens": 16, "speed_requests": 2}
    data["serve"] |= {"max_new_tokens": 16}
    # A policy under which the few items can promote.
    free = {"primary": ("bits_per_byte",), "guards": {}, "alpha": 0.45, "alpha_spending": "full"}
    data["gate"] |= {"min_items": 2, **free}
    return Config.model_validate(data)


def run_tiny(store: str, progress: Progress | None = None) -> run.DemoResult:
    roots = [root for root in package_roots() if root[0] in PACKAGES]
    return run.run_demo(store, True, config(), progress, SIZES, roots)


def write_report(out: str, store: str, kill_at: str = "", step: str = "0") -> None:
    result = run_tiny(store, Suicidal(kill_at, int(step)))
    answers = {v.name: v.checkpoint for v in result.versions}
    pages = [row.page for row in as_report(result, Path(store).parent).versions]
    more = {"checkpoints": answers, "pages": pages, "log": Path(store).name}
    Path(out).write_text(json.dumps(as_json(result) | more))


if __name__ == "__main__":
    torch.set_num_threads(1)
    loop.SAVE_EVERY_S = 0.0  # every step is one to resume from
    # A model this small never pleases: let half of the thumbs be up, and it learn from its own noise.
    users.HABITS = users.Habits(rates=1.0, sees_it=0.5)
    run.find_skill = lambda name: Anything()
    for line in sys.stdin:
        if not (child := os.fork()):
            code = 1
            try:
                write_report(*json.loads(line))
                code = 0
            except Exception:
                traceback.print_exc()
            finally:
                os._exit(code)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
