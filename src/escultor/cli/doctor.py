"""`doctor`: whether this machine and this project can work, and what to do where they cannot."""

from __future__ import annotations

import importlib.metadata as metadata
import importlib.util
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from escultor.cli.lookup import log_file, store_root
from escultor.cli.output import CommandResult, Shell
from escultor.errors import EscultorError
from escultor.process_pool import usable_cpus

GIGABYTE = 1e9
DISK_WARN, DISK_FAIL = 5 * GIGABYTE, 0.5 * GIGABYTE
STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    state: Literal["ok", "warn", "fail"]
    found: str
    remedy: str = ""


def doctor(shell: Shell) -> CommandResult:
    """Check Python, torch, the disk, the store, the model and the extras; fails say what to do."""
    checks = [_checked(name, check, shell) for name, check in CHECKS.items()]
    for check in checks:
        _show(shell, check)
    failed = sum(check.state == "fail" for check in checks)
    shell.say()
    shell.say(
        "all is well" if not failed else f"{failed} of {len(checks)} checks failed", "bold" if failed else ""
    )
    return CommandResult(
        {"checks": [asdict(check) for check in checks], "failed": failed}, 1 if failed else 0
    )


def _show(shell: Shell, check: Check) -> None:
    from rich.text import Text

    line = Text.assemble((f"{check.state:5}", STYLES[check.state]), f"{check.name:15}", check.found)
    shell.console.print(line, soft_wrap=True)
    if check.remedy:
        shell.console.print(Text(f"{'':20}{check.remedy}", style="dim"), soft_wrap=True)


def _checked(name: str, check: Callable[[Shell], Check], shell: Shell) -> Check:
    """The check; what it could not find out is a fail with the error's own remedy."""
    try:
        return check(shell)
    except EscultorError as error:
        what = error.what if error.got is None else f"{error.what}; got: {error.got}"
        return Check(name, "fail", what, error.remedy or "")
    except Exception as error:  # a broken installation may raise anything
        return Check(name, "fail", f"{type(error).__name__}: {error}", "install escultor again")


def _python(shell: Shell) -> Check:
    return Check("python", "ok", ".".join(map(str, sys.version_info[:3])))


def _packages(shell: Shell) -> Check:
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
        return Check("packages", "fail", "; ".join(wrong), "pip install --upgrade escultor")
    return Check("packages", "ok", f"all {count} required ones, in accepted versions")


def _torch(shell: Shell) -> Check:
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    return Check("torch", "ok", f"{torch.__version__} on {device}")


def _threads(shell: Shell) -> Check:
    import torch

    threads, cores = torch.get_num_threads(), usable_cpus()
    found = f"{threads} of {cores} usable cores"
    if threads > cores:
        return Check("threads", "warn", found, f"set OMP_NUM_THREADS={cores}; more threads than cores wait")
    return Check("threads", "ok", found)


def _bfloat16(shell: Shell) -> Check:
    from escultor.model.forward import fast_bfloat16

    if fast_bfloat16():
        return Check("bfloat16", "ok", "fast here; dtype auto uses it")
    return Check("bfloat16", "ok", "not fast here; dtype auto uses float32")


def _transformers(shell: Shell) -> Check:
    import transformers

    return Check("transformers", "ok", transformers.__version__)


def _config(shell: Shell) -> Check:
    path = shell.config_file or Path("escultor.yaml")
    sections = len(type(shell.config).model_fields)
    found = f"{path}" if path.is_file() else "defaults; no escultor.yaml here"
    return Check("configuration", "ok", f"{found}, {sections} sections")


def _disk(shell: Shell) -> Check:
    at = store_root(shell.config.store.url).absolute()
    while not at.exists():
        at = at.parent
    free = shutil.disk_usage(at).free
    found = f"{free / GIGABYTE:.1f} GB free for the store"
    if free < DISK_WARN:
        return Check("disk", "fail" if free < DISK_FAIL else "warn", found, "free disk space")
    return Check("disk", "ok", found)


def _store(shell: Shell) -> Check:
    from escultor.store import open_store, store_exists
    from escultor.types import Checkpoint, Deployment, Feedback, Interaction

    url = shell.config.store.url
    if not store_exists(url):
        root = store_root(url).absolute()
        while not root.exists():
            root = root.parent
        if not os.access(root, os.W_OK):
            return Check("store", "fail", f"{url} cannot be made", f"choose another place than {root}")
        return Check("store", "ok", f"{url}: not there yet, made when first needed")
    with open_store(url) as store:
        from escultor.store.schema import HEAD

        nouns = ((Checkpoint, "models"), (Deployment, "deployments"), (Interaction, "interactions"))
        counts = [f"{store.log.count(noun):,} {name}" for noun, name in nouns]
        counts.append(f"{store.log.count(Feedback):,} feedback events")
    where = "PostgreSQL" if log_file(url) is None else url
    return Check("store", "ok", f"{where}, revision {HEAD}: {', '.join(counts)}")


def _base(shell: Shell) -> Check:
    from escultor.model.folders import BUILT_IN, BUILT_IN_PATH, resolve

    wanted = shell.config.model.path
    if wanted != BUILT_IN:
        resolve(wanted)
        return Check("model", "ok", f"{wanted}, as configured")
    if not (BUILT_IN_PATH / "config.json").is_file():
        remedy = "make one with `escultor pretrain`, or set model.path to a model folder"
        return Check("model", "warn", f"{BUILT_IN} is not in this installation", remedy)
    size = sum(p.stat().st_size for p in resolve(BUILT_IN).iterdir() if p.is_file())
    return Check("model", "ok", f"{BUILT_IN}, {size / 1e6:.1f} MB")


def _lora(shell: Shell) -> Check:
    asked = any(getattr(shell.config, name).lora for name in ("sft", "dpo", "kto", "distillation"))
    return _extra("peft", "lora", "low-rank adapters", asked)


def _bitsandbytes(shell: Shell) -> Check:
    names = ("pretrain", "sft", "dpo", "kto", "distillation")
    asked = any(getattr(shell.config, name).optimizer == "adamw8bit" for name in names)
    return _extra("bitsandbytes", "8bit", "optimizer adamw8bit", asked)


def _postgres(shell: Shell) -> Check:
    return _extra("psycopg", "postgres", "a store on PostgreSQL", log_file(shell.config.store.url) is None)


def _extra(package: str, extra: str, purpose: str, needed: bool) -> Check:
    if importlib.util.find_spec(package):
        return Check(package, "ok", f"{metadata.version(package)}, for {purpose}")
    remedy = f"pip install 'escultor[{extra}]'"
    return Check(package, "fail" if needed else "warn", f"not installed; only for {purpose}", remedy)


CHECKS: dict[str, Callable[[Shell], Check]] = {
    "python": _python,
    "packages": _packages,
    "torch": _torch,
    "threads": _threads,
    "bfloat16": _bfloat16,
    "transformers": _transformers,
    "configuration": _config,
    "disk": _disk,
    "store": _store,
    "model": _base,
    "peft": _lora,
    "bitsandbytes": _bitsandbytes,
    "psycopg": _postgres,
}
