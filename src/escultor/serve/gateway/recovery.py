"""Recovery: rows for streams that were cut off by the end of their process, from their pending records."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress

from escultor.errors import Erased, IdTaken
from escultor.serve.writer import Writer
from escultor.store.log import Log
from escultor.types import Interaction, PendingInteraction

LOOK_BACK_S = 7 * 86400.0  # a gateway that starts considers pending records up to this age


class Recovery:
    """Finds pending records without a row; each search starts behind those before which all have theirs."""

    def __init__(self, log: Log, writer: Writer, owner: str, clock: Callable[[], float] = time.time):
        """`owner` is this process, as its own pending records name it."""
        self._log, self._writer, self._owner, self._clock = log, writer, owner, clock
        self._after = 0  # up to this entry every pending record has its row

    def recover(self) -> int:
        """Record the rows of streams whose process is gone; how many there were. Idempotent.

        Whether a process of this machine lives is checked; a stream of another machine is lost when its
        time is over. Raises StoreError when the store fails.
        """
        now, end = self._clock(), self._log.last_seq()
        since = 0.0 if self._after else now - LOOK_BACK_S
        unfinished = self._log.unmatched(PendingInteraction, Interaction, since, self._after)
        lost = [pending.interaction for _, pending in unfinished if self._is_lost(pending, now)]
        recorded = 0
        for future in [self._writer.submit(row) for row in lost]:
            with suppress(IdTaken, Erased):  # it got its row, or was erased, since the search
                future.result()
                recorded += 1
        self._after = min((seq - 1 for seq, _ in unfinished), default=end)
        return recorded

    def _is_lost(self, pending: PendingInteraction, now: float) -> bool:
        return pending.until < now or _is_gone(pending.owner, self._owner)


def _is_gone(owner: str, own: str) -> bool:
    """Whether a process has ended, as far as this machine can know."""
    host, number, _ = owner.split("/", 2)
    if host != own.split("/", 2)[0] or owner == own:
        return False
    if int(number) == os.getpid():
        return True  # the process that had this number before has ended: it is ours now
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # it runs, under another user
        return False
    return False
