"""Runs work in several real processes that are joined as torchrun joins them, on this machine alone."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from forked import FORKED

TIMEOUT_S = 120.0


def together(work: Callable[..., Any], *args: Any, size: int = 2, failures: bool = False) -> list[Any]:
    """`work(world, *args)` in `size` processes: what each returned, or None where it was killed.

    Raises AssertionError where a process hangs, or with the traceback of one that failed; with `failures`
    the traceback is its answer.
    """
    from torch.distributed import TCPStore

    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=30))
    pipes, processes = [], []
    for rank in range(size):
        ours, theirs = FORKED.Pipe(duplex=False)
        process = FORKED.Process(target=_child, args=(theirs, work, args, rank, size, store.port))
        process.start()
        theirs.close()
        pipes.append(ours)
        processes.append(process)
    try:
        return [_answer(pipe, process, failures) for pipe, process in zip(pipes, processes, strict=True)]
    finally:
        for process in processes:
            process.kill()
            process.join()


def _answer(pipe: Any, process: Any, failures: bool) -> Any:
    assert pipe.poll(TIMEOUT_S), "a process hangs"
    try:
        done, value = pipe.recv()
    except EOFError:
        process.join()
        assert process.exitcode == -signal.SIGKILL
        return None
    assert done or failures, value
    return value


def _child(
    pipe: Any, work: Callable[..., Any], args: tuple[Any, ...], rank: int, size: int, port: int
) -> None:
    import torch

    from escultor.train.distributed import joined

    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size)}
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }
    try:
        with joined() as world:
            answer = work(world, *args)
        pipe.send((True, answer))
    except BaseException:
        pipe.send((False, f"rank {rank}:\n{traceback.format_exc()}"))
