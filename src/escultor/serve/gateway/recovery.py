"""Streams that were cut by the end of their process: whoever comes next records the row of their opening."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress

from escultor.errors import Erased, IdTaken
from escultor.serve.writer import Writer
from escultor.store.log import Log
from escultor.types import Interaction, PendingInteraction

LOOK_BACK_S = 7 * 86400.0  # how old an opening without a row is looked for when a gateway starts


class Recovery:
    """Looks for openings without a row, each time behind those before which all have theirs."""

    def __init__(self, log: Log, writer: Writer, owner: str, clock: Callable[[], float] = time.time):
        """`owner` is who looks, as its openings name it."""
        self._log, self._writer, self._owner, self._clock = log, writer, owner, clock
        self._after = 0  # up to this entry no row is lacking

    def look(self) -> int:
        """Record the rows of streams whose process is gone; how many there were. Repeating it is harmless.

        A process of this machine is looked for; of one elsewhere it is waited until its time is over.
        Raises StoreError when the store fails.
        """
        now, end = self._clock(), self._log.end()
        since = 0.0 if self._after else now - LOOK_BACK_S
        lacking = self._log.lacking(PendingInteraction, Interaction, since, self._after)
        lost = [opening.interaction for _, opening in lacking if self._is_lost(opening, now)]
        recorded = 0
        for future in [self._writer.submit(row) for row in lost]:
            with suppress(IdTaken, Erased):  # it got its row, or was erased, since we looked
                future.result()
                recorded += 1
        self._after = min((seq - 1 for seq, _ in lacking), default=end)
        return recorded

    def _is_lost(self, opening: PendingInteraction, now: float) -> bool:
        return opening.until < now or _is_gone(opening.owner, self._owner)


def _is_gone(owner: str, asking: str) -> bool:
    """Whether a process of this machine is no more; of another machine's nothing is known."""
    host, number, _ = owner.split("/", 2)
    if host != asking.split("/", 2)[0] or owner == asking:
        return False
    if int(number) == os.getpid():
        return True  # whoever had this number before is gone: we have it
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # it is there, and another user's
        return False
    return False
