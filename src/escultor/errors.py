"""One tree of errors. Each message says what is wrong, what was found, what is allowed, and the remedy.

EscultorError
├── InputError (ValueError)        wrong usage or input; exit code 2
│   ├── ConfigError                a configuration key or value that cannot be used
│   ├── DataError                  a row or file of data that cannot be used
│   │   └── TooLong                a prompt that leaves no room in the model's context
│   ├── TokenError                 a feedback token that is foreign, changed or expired
│   └── ModelError                 a directory that holds no usable model
└── FaultError (RuntimeError)      a fault; exit code 1
    ├── StoreError                 the store could not be read or written
    │   ├── IdTaken                an id names other content already
    │   ├── Erased                 the record, or what it is about, was erased and must not return
    │   └── LocationError          the location is full, or written by a newer version; exit code 2
    ├── EngineFault                an answer could not be computed
    │   ├── Overloaded             too many requests are waiting
    │   ├── EngineDown             the engine has ended
    │   ├── SchemaFault            the answer could not be kept to its JSON schema any further
    │   └── UpstreamFault          the upstream server failed, timed out or sent no valid answer
    │       └── UpstreamStatus     it refused the request, with a status that is the client's to see
    └── TrainingError              a training run had to stop
        ├── NotFinite              its loss or gradient is not finite
        └── LostProcess            another of its processes is gone
"""

from __future__ import annotations

MAX_GOT = 1000  # characters of what was found that a message repeats


def shortened(text: str, limit: int) -> str:
    """The text, or its beginning and its length where it is longer than `limit` characters."""
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text)} characters)"


def format_message(what: str, got: object = None, allowed: object = None, remedy: str | None = None) -> str:
    """Join the four parts of a message; parts not given are left out."""
    parts = [what]
    if got is not None:
        parts.append(f"got: {shortened(str(got), MAX_GOT)}")
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
    """A failure that the caller's input does not explain."""


class StoreError(FaultError):
    """The store could not be read or written."""


class IdTaken(StoreError):
    """An id that names other content already; the store itself is well."""


class Erased(StoreError):
    """A record, or what it is about, was erased on request; the store itself is well."""


class LocationError(StoreError):
    """The given location cannot be written: it is full, or was written by a newer version.

    Found only while writing, so it is a fault to the code that catches it; the user can choose another
    location, so the exit code is that of wrong input.
    """

    exit_code = 2


class EngineFault(FaultError):
    """An answer could not be computed."""


class Overloaded(EngineFault):
    """Too many requests are waiting; try again later."""


class EngineDown(EngineFault):
    """The engine has ended; nothing is wrong with the request."""


class SchemaFault(EngineFault):
    """An answer could not be kept to its JSON schema any further; the engine is well."""


class UpstreamFault(EngineFault):
    """The upstream server failed, timed out or sent no valid answer."""


class UpstreamStatus(UpstreamFault):
    """The upstream server refused a request with an HTTP status, which is the client's to see. `headers` say
    when to try again; `code` is the upstream's own name of the error."""

    def __init__(
        self,
        what: str,
        got: object = None,
        allowed: object = None,
        remedy: str | None = None,
        *,
        status: int = 502,
        code: str = "",
        headers: dict[str, str] | None = None,
    ):
        super().__init__(what, got, allowed, remedy)
        self.status, self.code, self.headers = status, code, headers or {}


class TrainingError(FaultError):
    """A training run that had to stop, for example at a non-finite loss."""


class NotFinite(TrainingError):
    """A step's loss or gradient is not finite; the weights are those of the step before."""


class LostProcess(TrainingError):
    """A run of several processes that had to stop because another one of them is gone."""
