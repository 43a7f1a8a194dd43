"""Leases: at most one process of all that share a store does a thing, and a dead one is replaced soon.

A lease is a row with an end that its holder moves on. Its clock is the database's: that of the server, or of
the one machine that a SQLite file is on. A holder that ended on the same machine is seen at once; one that
cannot be seen, when its lease is over. A process that was stopped longer than that may go on beside the new
holder: what must not happen twice has to be recorded under one id, which the log takes once.
"""

from __future__ import annotations

import threading
import time
from types import TracebackType

from sqlalchemy import Connection, delete, func, insert, select, update

from escultor.errors import FaultError, InputError, StoreError
from escultor.store import Store
from escultor.store.database import reading, writing
from escultor.store.files import is_owner_dead, owner_name
from escultor.store.tables import lease

LENGTH_S = 20.0  # a holder that is not heard of for so long has lost its lease
HEARTBEAT_S = 5.0


class Lease:
    """Holds the lease of this name while its context is open; a thread prolongs it.

    Entering raises InputError where another process holds it. `check` raises FaultError once it is lost.
    """

    def __init__(self, store: Store, name: str, length_s: float = LENGTH_S, heartbeat_s: float = HEARTBEAT_S):
        self.store, self.name, self.length_s, self.heartbeat_s = store, name, length_s, heartbeat_s
        self.holder = owner_name()
        self._ended, self._until = threading.Event(), 0.0
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Lease:
        if (other := self._take()) is not None:
            remedy = "wait until it is done; a holder that has died is replaced within a minute"
            raise InputError("another process is at work", f"{other} holds {self.name}", remedy=remedy)
        self._thread = threading.Thread(target=self._prolong, name=f"lease {self.name}", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        try:
            with writing(self.store.log._engine) as connection:
                connection.execute(delete(lease).where(*self._own))
        except StoreError:
            if error is None:
                raise  # else the first error is the one to tell; the lease ends by itself

    def check(self) -> None:
        """Raises FaultError where the lease is lost: the database was away, or the process stopped."""
        if time.monotonic() > self._until:
            raise FaultError("the work was taken over by another process", f"lease {self.name}")

    @property
    def _own(self):
        return lease.c.name == self.name, lease.c.holder == self.holder

    def _take(self) -> str | None:
        """Take the lease, or the name of who holds it."""
        began = time.monotonic()
        with writing(self.store.log._engine) as connection:
            now = _now(connection)
            row = connection.execute(select(lease).where(lease.c.name == self.name)).first()
            if row is not None and _is_live(row.holder, row.until, now, self.length_s):
                return row.holder
            connection.execute(delete(lease).where(lease.c.name == self.name))
            values = {"name": self.name, "holder": self.holder, "until": now + self.length_s}
            connection.execute(insert(lease).values(values))
        self._until = began + self.length_s
        return None

    def _prolong(self) -> None:
        while not self._ended.wait(self.heartbeat_s):
            began = time.monotonic()
            try:
                with writing(self.store.log._engine) as connection:
                    until = _now(connection) + self.length_s
                    done = connection.execute(update(lease).where(*self._own).values(until=until))
            except StoreError:
                continue  # the database may be back before the lease is over
            if not done.rowcount:
                self._until = 0.0
                return
            self._until = began + self.length_s


def holder(store: Store, name: str) -> str | None:
    """Who holds a lease now; None where nobody does."""
    with reading(store.log._engine) as connection:
        row = connection.execute(select(lease).where(lease.c.name == name)).first()
        now = _now(connection)
    return row.holder if row is not None and _is_live(row.holder, row.until, now) else None


def _is_live(owner: str, until: float, now: float, length_s: float = LENGTH_S) -> bool:
    # An end further away than a lease is long was written before the clock was set back.
    return now < until <= now + 2 * length_s and not is_owner_dead(owner)


def _now(connection: Connection) -> float:
    if connection.dialect.name != "postgresql":
        return time.time()
    return float(connection.execute(select(func.extract("epoch", func.clock_timestamp()))).scalar_one())
