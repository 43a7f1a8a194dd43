"""A command in several processes, started by --launch or by torchrun itself; only the first one prints."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from typer import Option

from escultor.cli.output import describe, report
from escultor.errors import FaultError, InputError, LostProcess

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from escultor.train.distributed import World

_LAUNCH_OPTIONS = ("--launch", "--nproc")  # not passed on to the processes
_LAUNCHED = "ESCULTOR_LAUNCHED"  # in the environment of processes that `launch` started
# Not torchrun's own SIGTERM; Windows lacks two of them.
_SIGNALS = ("SIGKILL", "SIGSEGV", "SIGBUS", "SIGABRT")
_KILLED = tuple(-getattr(signal, name) for name in _SIGNALS if hasattr(signal, name))


@dataclass(frozen=True)
class Processes:
    """The options of a command that can run in several processes. Raises InputError where they contradict one
    another or the machine."""

    panel: ClassVar = "Several processes"

    launch: Annotated[
        Literal["torchrun"] | None, Option(help="Start --nproc processes that train as one.")
    ] = None
    nproc: Annotated[int | None, Option(help="Processes on this machine.")] = None
    strategy: Annotated[
        Literal["ddp", "fsdp"] | None,
        Option(help="ddp: each holds the whole model (default); fsdp: each holds a share of it."),
    ] = None

    def __post_init__(self) -> None:
        if self.launch and self.rank is not None:
            raise InputError("--launch within torchrun: torchrun has started these", "both", "one of both")
        if (self.launch is None) != (self.nproc is None):
            option, missing = ("--launch", "--nproc N") if self.launch else ("--nproc", "--launch torchrun")
            remedy = f"add {missing}, or leave both out"
            raise InputError(f"{option} needs {missing}", f"{option} alone", "both", remedy)
        if self.nproc is not None and not 1 <= self.nproc <= _max_processes():
            what = "this machine cannot run so many processes"
            allowed = f"1 to {_max_processes()}, the number of its GPUs, or else of its cores"
            raise InputError(what, f"--nproc {self.nproc}", allowed, "give a number in between")
        if self.strategy and self.launch is None and self.rank is None:
            what = f"--strategy {self.strategy} is for several processes"
            allowed = "--launch torchrun --nproc N, or torchrun -m escultor"
            raise InputError(what, "a single one", allowed, "leave --strategy out")

    @property
    def rank(self) -> int | None:
        """The number of this process among those that torchrun started; None if it did not start it."""
        return int(os.environ["RANK"]) if {"RANK", "WORLD_SIZE"} <= os.environ.keys() else None

    @property
    def first(self) -> bool:
        return not self.rank

    def joined(self) -> AbstractContextManager[World]:
        """The processes that torchrun started, or one alone."""
        from escultor.train.distributed import joined

        if _LAUNCHED in os.environ:
            _end_with_parent()
        return joined(self.strategy or "ddp")

    @contextmanager
    def silenced(self) -> Iterator[None]:
        """Nothing that is printed within it is shown; errors are reported by `report_once`."""
        with open(os.devnull, "w", encoding="utf-8") as null, redirect_stdout(null), redirect_stderr(null):
            yield


def launch(processes: Processes, words: Sequence[str]) -> int:
    """Run `escultor` with these words, except for --launch and --nproc, in several processes of torchrun.

    Returns 0, or the exit code of the process that failed first and reported its error. Raises FaultError
    where one was killed and could not report anything.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    count = processes.nproc or 1
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    os.environ[_LAUNCHED] = "1"
    own = ["--standalone", "--nproc-per-node", str(count), "-m", "escultor"]
    try:
        run(parse_args([*own, *_without_launch(words)]))
    except ChildFailedError as error:
        killed = [(rank, failure) for rank, failure in error.failures.items() if failure.exitcode in _KILLED]
        rank, failure = killed[0] if killed else error.get_first_failure()
        if failure.exitcode > 0:
            return failure.exitcode
        raise FaultError(
            f"process {rank} was killed",
            failure.signal_name(),
            remedy="free memory if it ran out; the same command continues from the last saved state",
        ) from error
    except SignalException as error:
        raise KeyboardInterrupt from error
    return 0


def report_once(error: BaseException, as_json: bool, debug: bool) -> int:
    """`report` an error in the process that fails first. The others fail because of it or with the same
    error, and only return its exit code."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True" or "RANK" not in os.environ:
        return report(error, as_json, debug)
    from torch.distributed import TCPStore  # type: ignore[reportPrivateImportUsage]

    # The store of the agent that started the processes: it outlives all of them.
    store = TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
    if store.add("escultor/failed", 1) > 1:
        return int(store.get("escultor/exit"))
    if _LAUNCHED in os.environ and isinstance(error, LostProcess | KeyboardInterrupt):
        code = describe(error)[1]  # `launch` sees the cause and reports it
    else:
        if (rank := os.environ["RANK"]) != "0":
            print(f"process {rank} of {os.environ['WORLD_SIZE']}:", file=sys.stderr)
        code = report(error, as_json, debug)
    sys.stdout.flush()
    store.set("escultor/exit", str(code))  # only now: the agent ends all when the next one leaves
    return code


def _without_launch(words: Sequence[str]) -> list[str]:
    kept: list[str] = []
    remaining = iter(words)
    for word in remaining:
        if word in _LAUNCH_OPTIONS:
            next(remaining, None)
        elif word.partition("=")[0] not in _LAUNCH_OPTIONS:
            kept.append(word)
    return kept


def _max_processes() -> int:
    """The number of GPUs of this machine, or without any of its processor cores."""
    import torch

    return torch.cuda.device_count() or os.cpu_count() or 1


def _end_with_parent() -> None:
    """Have the kernel end this process when its parent is killed, so that none keeps writing unnoticed."""
    if sys.platform.startswith("linux"):
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG, linux/prctl.h
