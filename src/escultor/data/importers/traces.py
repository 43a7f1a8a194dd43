"""What was asked and answered, as tracing tools record it, as interactions; and the tools' own forms of it:
LangSmith's runs and feedback, Phoenix's spans and annotations, MLflow's traces, Helicone's requests, and
the chat completions that OpenAI stores.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from escultor.data.importers import dialogues
from escultor.data.importers.session import ImportSession
from escultor.data.jsonl_rows import Skip
from escultor.strict_json import strict_loads
from escultor.types import Interaction


def record(
    session: ImportSession, id: str, given: Any, output: Any, *, failed: bool = False, **known: Any
) -> Iterator[Interaction]:
    """The interaction of what was given and what came back, JSON of any common form. A step that is no
    conversation, or failed, is counted and leaves nothing. `known`: see `ImportSession.interaction`."""
    try:
        if failed:
            raise Skip("a failed call is no answer")
        prompt, answer, finish = dialogues.exchange(given, output)
        unused = dialogues.unused_inputs(given)
        made = session.interaction(id, prompt, answer, finish=finish, **known)
    except Skip as skip:
        session.report.count(str(skip))
        return
    for key in unused:
        session.report.count(f"inputs beside the question, not kept: {key}")
    yield made


def decoded(value: Any) -> Any:
    """The value of a text that is JSON; any other value as it is."""
    if not isinstance(value, str) or value.lstrip()[:1] not in ("{", "[", '"'):
        return value
    try:
        return strict_loads(value)
    except ValueError:
        return value


def recorded(value: Any) -> Any:
    """The value of a text that is the JSON of messages, as tables have them; any other value as it is: an
    answer may be JSON itself."""
    inner = decoded(value)
    each = inner if isinstance(inner, list) else [inner]
    is_known = any(isinstance(e, dict) and e.keys() & {"role", "messages", "choices"} for e in each)
    return inner if is_known else value


def figure(value: Any, most: float = 1e9) -> float:
    """A number from 0 to `most`; 0 for anything else."""
    is_real = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_real and 0 <= value <= most else 0.0
