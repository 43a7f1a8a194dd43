"""The monitor that runs on: it waits for a store that is away and tells so, and one monitor of all works."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field

from escultor.config import Config
from escultor.cycle.monitoring import Watch, check_config, monitor_of, watch_once
from escultor.errors import FaultError, InputError, LocationError, StoreError
from escultor.monitor.metrics import DAY_S
from escultor.monitor.outage import StoreOutage
from escultor.monitor.service import MonitorService
from escultor.store import Store
from escultor.store.leases import Lease

LEASE = "monitor"


@dataclass(slots=True)
class MonitorLoop:
    """Checks one store again and again. `tell` receives a line for what keeps it from that. With
    `takes_turns` it checks only while it holds the store's lease, so that of several monitors one works, and
    another goes on when that has ended. Raises ConfigError or InputError for receivers that cannot be
    reached."""

    config: Config
    tell: Callable[[str], None] = lambda line: None
    takes_turns: bool = False
    _outage: StoreOutage = field(init=False)
    _service: MonitorService | None = None
    _lease: Lease | None = None
    _turn: ExitStack = field(default_factory=ExitStack)  # holds the lease
    _is_waiting: bool = False  # for another monitor
    _told: str = ""

    def __post_init__(self) -> None:
        check_config(self.config)
        self._outage = StoreOutage(self.config.monitor.notify)

    def open(self, opened: Callable[[], Store], pause_s: float) -> Store:
        """The store that `opened` returns: it is called again while the store is away."""
        while True:
            try:
                return opened()
            except LocationError:
                raise
            except StoreError as error:
                self._note(error, time.time())
                time.sleep(pause_s)

    def look(self, store: Store, now: float) -> Watch | None:
        """Check once. None where the store is away, has nothing to watch yet, or another monitor works."""
        try:
            self._outage.end(store, now)
            if self.takes_turns and not self._has_turn(store):
                return None
            self._service = self._service or monitor_of(store, self.config)
            watch = watch_once(store, self.config, now, now - DAY_S, self._service)
        except StoreError as error:
            self._note(error, now)
            return None
        except InputError as error:
            self._tell(str(error))
            return None
        self._told = ""
        return watch

    def end(self) -> None:
        """Let another monitor go on."""
        self._lease = None
        self._turn.close()

    def _has_turn(self, store: Store) -> bool:
        if self._lease is not None:
            try:
                self._lease.check()
                return True
            except FaultError:  # it was lost while the database was away
                self.end()
        try:
            self._lease = self._turn.enter_context(Lease(store, LEASE))
        except InputError as error:
            self._is_waiting, self._service = True, None
            self._tell(f"waiting: {error.got}")
            return False
        self._is_waiting = False
        return True

    def _note(self, error: StoreError, now: float) -> None:
        """Say that the store is away, to the receivers too, unless another monitor does."""
        failures = [] if self._is_waiting else self._outage.note(error, now)
        self._tell("; ".join((f"waiting for the store: {error}", *failures)))

    def _tell(self, line: str) -> None:
        if line != self._told:
            self.tell(line)
        self._told = line
