"""`doctor`: whether this machine and this project can work, and the remedy where they cannot."""

from __future__ import annotations

import importlib.metadata as metadata
import importlib.util
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

from escultor.cli.lookup import log_file, open_or_create_store, store_root
from escultor.cli.output import DEFAULT_CONFIG, CommandResult, Shell, printable
from escultor.errors import EscultorError
from escultor.process_pool import usable_cpus
from escultor.store import store_exists
from escultor.types import Checkpoint, Deployment, Feedback, Interaction

GIGABYTE = 1e9
DISK_WARN, DISK_FAIL = 5 * GIGABYTE, 0.5 * GIGABYTE
STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}


class CheckResult(NamedTuple):
    state: Literal["ok", "warn", "fail"]
    found: str
    remedy: str = ""


def doctor(shell: Shell) -> CommandResult:
    """Check Python, torch, the disk, the store, the model and the extras; a failed check shows its remedy."""
    results = {check.__name__.lstrip("_"): _run(check, shell) for check in CHECKS}
    for name, result in results.items():
        _show(shell, name, result)
    failed = sum(result.state == "fail" for result in results.values())
    shell.print()
    if failed:
        shell.print(f"{failed} of {len(results)} checks failed", "bold")
    else:
        shell.print("all is well")
    checks = [{"name": name, **result._asdict()} for name, result in results.items()]
    return CommandResult({"checks": checks, "failed": failed}, 1 if failed else 0)


def _run(check: Callable[[Shell], CheckResult], shell: Shell) -> CheckResult:
    """The result of a check; an error in it is a failure with the error's own remedy."""
    try:
        return check(shell)
    except EscultorError as error:
        what = error.what if error.got is None else f"{error.what}; got: {error.got}"
        return CheckResult("fail", what, error.remedy or "")
    except Exception as error:  # a broken installation may raise anything
        return CheckResult("fail", f"{type(error).__name__}: {error}", "install escultor again")


def _show(shell: Shell, name: str, result: CheckResult) -> None:
    from rich.text import Text

    line = Text.assemble((f"{result.state:5}", STYLES[result.state]), f"{name:15}", printable(result.found))
    shell.console.print(line, soft_wrap=True)
    if result.remedy:
        shell.console.print(Text(printable(f"{'':20}{result.remedy}"), style="dim"), soft_wrap=True)


def _python(shell: Shell) -> CheckResult:
    return CheckResult("ok", ".".join(map(str, sys.version_info[:3])))


def _packages(shell: Shell) -> CheckResult:
    """Every package that escultor requires, in a version that it accepts."""
    from packaging.requirements import Requirement

    wrong, count = [], 0
    for text in metadata.requires("escultor") or []:
        needed = Requirement(text)
        if needed.marker is not None and not needed.marker.evaluate({"extra": ""}):
            continue
        count += 1
        try:
            found = metadata.version(needed.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{needed.name} is missing")
            continue
        if not needed.specifier.contains(found, prereleases=True):
            wrong.append(f"{needed.name} {found}, not {needed.specifier}")
    if wrong:
        return CheckResult("fail", "; ".join(wrong), "pip install --upgrade escultor")
    return CheckResult("ok", f"all {count} required ones, in accepted versions")


def _torch(shell: Shell) -> CheckResult:
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    return CheckResult("ok", f"{torch.__version__} on {device}")


def _threads(shell: Shell) -> CheckResult:
    import torch

    threads, cores = torch.get_num_threads(), usable_cpus()
    found = f"{threads} of {cores} usable cores"
    if threads > cores:
        return CheckResult("warn", found, f"set OMP_NUM_THREADS={cores}; more threads than cores wait")
    return CheckResult("ok", found)


def _bfloat16(shell: Shell) -> CheckResult:
    from escultor.model.forward import fast_bfloat16

    fast, slow = "fast here; dtype auto uses it", "not fast here; dtype auto uses float32"
    return CheckResult("ok", fast if fast_bfloat16() else slow)


def _transformers(shell: Shell) -> CheckResult:
    import transformers

    return CheckResult("ok", transformers.__version__)


def _configuration(shell: Shell) -> CheckResult:
    path = shell.config_file or DEFAULT_CONFIG
    sections = len(type(shell.config).model_fields)
    found = f"{path}" if path.is_file() else "defaults; no escultor.yaml here"
    return CheckResult("ok", f"{found}, {sections} sections")


def _existing_root(shell: Shell) -> Path:
    """The store's folder, or the nearest folder above it that exists."""
    root = store_root(shell.store_url).absolute()
    return next(folder for folder in (root, *root.parents) if folder.exists())


def _disk(shell: Shell) -> CheckResult:
    free = shutil.disk_usage(_existing_root(shell)).free
    found = f"{free / GIGABYTE:.1f} GB free for the store"
    if free < DISK_WARN:
        return CheckResult("fail" if free < DISK_FAIL else "warn", found, "free disk space")
    return CheckResult("ok", found)


def _store(shell: Shell) -> CheckResult:
    from escultor.store.schema import HEAD

    url = shell.store_url
    if not store_exists(url):
        root = _existing_root(shell)
        if not os.access(root, os.W_OK):
            return CheckResult("fail", f"{url} cannot be made", f"choose another place than {root}")
        return CheckResult("ok", f"{url}: not there yet, made when first needed")
    names = {Checkpoint: "models", Deployment: "deployments", Interaction: "interactions"}
    with open_or_create_store(shell) as store:
        counts = [f"{store.log.count(record):,} {name}" for record, name in names.items()]
        counts.append(f"{store.log.count(Feedback):,} feedback events")
    where = "PostgreSQL" if log_file(url) is None else url
    return CheckResult("ok", f"{where}, revision {HEAD}: {', '.join(counts)}")


def _model(shell: Shell) -> CheckResult:
    from escultor.model.folders import BUILT_IN, BUILT_IN_PATH, resolve

    path = shell.config.model.path
    if path != BUILT_IN:
        resolve(path)
        return CheckResult("ok", f"{path}, as configured")
    if not (BUILT_IN_PATH / "config.json").is_file():
        remedy = "make one with `escultor pretrain`, or set model.path to a model folder"
        return CheckResult("warn", f"{BUILT_IN} is not in this installation", remedy)
    size = sum(p.stat().st_size for p in resolve(BUILT_IN).iterdir() if p.is_file())
    return CheckResult("ok", f"{BUILT_IN}, {size / 1e6:.1f} MB")


def _peft(shell: Shell) -> CheckResult:
    needed = any(getattr(shell.config, name).lora for name in ("sft", "dpo", "kto", "distillation"))
    return _extra("peft", "lora", "low-rank adapters", needed)


def _bitsandbytes(shell: Shell) -> CheckResult:
    sections = ("pretrain", "sft", "dpo", "kto", "distillation")
    needed = any(getattr(shell.config, name).optimizer == "adamw8bit" for name in sections)
    return _extra("bitsandbytes", "8bit", "optimizer adamw8bit", needed)


def _psycopg(shell: Shell) -> CheckResult:
    return _extra("psycopg", "postgres", "a store on PostgreSQL", log_file(shell.store_url) is None)


def _extra(package: str, extra: str, purpose: str, needed: bool) -> CheckResult:
    if importlib.util.find_spec(package):
        return CheckResult("ok", f"{metadata.version(package)}, for {purpose}")
    remedy = f"pip install 'escultor[{extra}]'"
    return CheckResult("fail" if needed else "warn", f"not installed; only for {purpose}", remedy)


CHECKS = (
    *(_python, _packages, _torch, _threads, _bfloat16, _transformers, _configuration),
    *(_disk, _store, _model, _peft, _bitsandbytes, _psycopg),
)
