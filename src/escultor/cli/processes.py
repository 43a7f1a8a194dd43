"""A command in several processes: started by --launch, or by torchrun itself. The first speaks for all."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from escultor.cli.output import exit_code, report
from escultor.errors import FaultError, InputError, LostProcess

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from escultor.train.distributed import World

PANEL = "Several processes"
_OWN = ("--launch", "--nproc")  # of the launch, not of the command that it starts
_LAUNCHED = "ESCULTOR_LAUNCHED"  # in the environment of processes that `launch` started
_SIGNALS = (
    "SIGKILL",
    "SIGSEGV",
    "SIGBUS",
    "SIGABRT",
)  # not torchrun's own SIGTERM; Windows lacks two of them
_KILLED = tuple(-getattr(signal, name) for name in _SIGNALS if hasattr(signal, name))


@dataclass(frozen=True, slots=True)
class Processes:
    """How many processes run a command, and which of them this is."""

    nproc: int | None = None  # to be started
    strategy: Literal["ddp", "fsdp"] = "ddp"
    rank: int = 0

    @property
    def first(self) -> bool:
        return self.rank == 0

    def joined(self) -> AbstractContextManager[World]:
        """The processes that torchrun started, or one alone."""
        from escultor.train.distributed import joined

        if _LAUNCHED in os.environ:
            _end_with_parent()
        return joined(self.strategy)

    @contextmanager
    def speaking(self) -> Iterator[None]:
        """Only the first process is heard; errors are another matter (`report_once`)."""
        if self.first:
            yield
            return
        with (
            open(os.devnull, "w", encoding="utf-8") as nowhere,
            redirect_stdout(nowhere),
            redirect_stderr(nowhere),
        ):
            yield


def processes_of(
    launch: Annotated[
        Literal["torchrun"] | None,
        typer.Option("--launch", help="Start --nproc processes that train as one.", rich_help_panel=PANEL),
    ] = None,
    nproc: Annotated[
        int | None, typer.Option("--nproc", help="Processes on this machine.", rich_help_panel=PANEL)
    ] = None,
    strategy: Annotated[
        Literal["ddp", "fsdp"] | None,
        typer.Option(
            "--strategy",
            help="ddp: each holds the whole model (default); fsdp: each holds a share of it.",
            rich_help_panel=PANEL,
        ),
    ] = None,
) -> Processes:
    """The processes of a call; its signature is the list of their options."""
    rank = os.environ.get("RANK") if "WORLD_SIZE" in os.environ else None
    if launch and rank is not None:
        raise InputError("--launch starts processes, and torchrun has started these", "both", "one of both")
    if (launch is None) != (nproc is None):
        given, missing = ("--nproc", "--launch torchrun") if nproc is not None else ("--launch", "--nproc N")
        raise InputError(
            f"{given} needs {missing}", f"{given} alone", "both", f"add {missing}, or leave both out"
        )
    if nproc is not None and not 1 <= nproc <= _most():
        raise InputError(
            "this machine cannot run so many processes",
            f"--nproc {nproc}",
            f"1 to {_most()}, its GPUs or else its cores",
            "give a number in between",
        )
    if strategy and launch is None and rank is None:
        raise InputError(
            f"--strategy {strategy} is for several processes",
            "a single one",
            "--launch torchrun --nproc N, or torchrun -m escultor",
            "leave --strategy out",
        )
    return Processes(nproc, strategy or "ddp", int(rank or 0))


def launch(processes: Processes, words: Sequence[str]) -> int:
    """Run `escultor` with these words, but for the launch's own, in several processes through torchrun.

    Returns the exit code of the process that failed first, or 0; it has said why. Raises FaultError where one
    was killed, and could not.
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
        killed = [each for each in error.failures.items() if each[1].exitcode in _KILLED]
        rank, failure = killed[0] if killed else error.get_first_failure()
        if failure.exitcode > 0:
            return failure.exitcode
        raise FaultError(
            f"process {rank} was killed",
            failure.signal_name(),
            remedy="free memory if it was out of it; the same command goes on from the last saved state",
        ) from error
    except SignalException as error:
        raise KeyboardInterrupt from error
    return 0


def report_once(error: BaseException, as_json: bool, debug: bool) -> int:
    """`report` in the process that fails first; the others only leave with its exit code. They fail because
    it did, or with the same words."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True" or "RANK" not in os.environ:
        return report(error, as_json, debug)
    from torch.distributed import TCPStore  # type: ignore[reportPrivateImportUsage]

    # Of the agent that started the processes, so that it outlives any of them.
    store = TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
    if store.add("escultor/failed", 1) > 1:
        return int(store.get("escultor/exit"))
    if _LAUNCHED in os.environ and isinstance(error, LostProcess | KeyboardInterrupt):
        code = exit_code(error)  # `launch` sees the cause, and says it
    else:
        if (rank := os.environ["RANK"]) != "0":
            print(f"process {rank} of {os.environ['WORLD_SIZE']}:", file=sys.stderr)
        code = report(error, as_json, debug)
    sys.stdout.flush()
    store.set("escultor/exit", str(code))  # only now: the agent ends all when the next one leaves
    return code


def _without_launch(words: Sequence[str]) -> list[str]:
    left: list[str] = []
    given: Any = iter(words)
    for word in given:
        if word in _OWN:
            next(given, None)
        elif word.partition("=")[0] not in _OWN:
            left.append(word)
    return left


def _most() -> int:
    """Processes that this machine has a GPU each for, or a processor core."""
    import torch

    return torch.cuda.device_count() or os.cpu_count() or 1


def _end_with_parent() -> None:
    """Have the kernel end this process when the launch is killed, so that none goes on writing unseen."""
    if sys.platform.startswith("linux"):
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG, linux/prctl.h
