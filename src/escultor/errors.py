"""One tree of errors. Each message says what is wrong, what was found, what is allowed, and the remedy.

EscultorError
├── InputError (ValueError)        wrong usage or input: the command line leaves with 2
│   ├── ConfigError                a key or value of the configuration
│   ├── DataError                  a row or file of data
│   │   └── TooLong                because it leaves the model's context no room
│   ├── TokenError                 a feedback token that is not ours, was changed or has expired
│   └── ModelError                 a directory that is no usable model
└── FaultError (RuntimeError)      a fault: the command line leaves with 1
    ├── StoreError                 the store could not be read or written
    │   └── LocationError             because the place given is full, or a newer version's: leaves with 2
    │   ├── IdTaken                because an id names other content already
    │   └── Erased                 because what it is, or is about, was erased and must not come back
    ├── EngineFault                an answer could not be computed
    │   ├── Overloaded             because too much is waiting already
    │   ├── EngineDown             because what computes answers has ended
    │   ├── SchemaFault            because its schema became too much to follow on the way
    │   └── UpstreamFault          because the server behind failed, hung or spoke nonsense
    └── TrainingError              a run that had to stop
        ├── NotFinite              because its loss or gradient is no finite number
        └── LostProcess            because another of its processes is gone
"""

from __future__ import annotations


def format_message(what: str, got: object = None, allowed: object = None, remedy: str | None = None) -> str:
    """Join the four parts of a message; parts not given are left out."""
    parts = [what]
    if got is not None:
        parts.append(f"got: {got}")
    if allowed is not None:
        parts.append(f"allowed: {allowed}")
    if remedy is not None:
        parts.append(f"remedy: {remedy}")
    return "; ".join(parts)


class EscultorError(Exception):
    """Base of every error that Escultor raises on purpose. Picklable: its state is its arguments."""

    exit_code = 1

    def __init__(self, what: str, got: object = None, allowed: object = None, remedy: str | None = None):
        super().__init__(what, got, allowed, remedy)
        self.what, self.got, self.allowed, self.remedy = what, got, allowed, remedy

    def __str__(self) -> str:
        return format_message(self.what, self.got, self.allowed, self.remedy)


class InputError(EscultorError, ValueError):
    """The caller gave something that cannot be used."""

    exit_code = 2


class ConfigError(InputError):
    """A configuration key or value that cannot be used."""


class DataError(InputError):
    """A data file or row that cannot be used."""


class TooLong(DataError):
    """A prompt that leaves no room for an answer in the model's context."""


class TokenError(InputError):
    """A feedback token that this store did not issue, or that is no longer good."""


class ModelError(InputError):
    """A directory or name that is no usable model."""


class FaultError(EscultorError, RuntimeError):
    """Something failed that the caller's input does not explain."""


class StoreError(FaultError):
    """The store could not be read or written."""


class IdTaken(StoreError):
    """An id that names other content already; the store itself is well."""


class Erased(StoreError):
    """What was offered, or what it is about, was erased on somebody's request; the store itself is well."""


class LocationError(StoreError):
    """The place that was given cannot take what is to be written: it is full, or a newer version's.

    It is found only while writing, so it is a fault to whoever catches it; to who gave the place it is
    input to be mended, and the command line leaves with 2.
    """

    exit_code = 2


class EngineFault(FaultError):
    """An answer could not be computed."""


class Overloaded(EngineFault):
    """Too much is waiting already; ask again later."""


class EngineDown(EngineFault):
    """What computes answers has ended; nothing is wrong with what was asked."""


class SchemaFault(EngineFault):
    """An answer could be kept to its schema no further; the engine is well, the schema is the caller's."""


class UpstreamFault(EngineFault):
    """The server behind failed, hung or answered what is no answer."""


class TrainingError(FaultError):
    """A training run that had to stop, for example at a non-finite loss."""


class NotFinite(TrainingError):
    """A step's loss or gradient is not finite; the weights are those of the step before."""


class LostProcess(TrainingError):
    """A run of several processes that had to stop because another one of them is gone."""
