import json
from types import SimpleNamespace

import pytest

from escultor.data.importers import events
from escultor.types import Feedback, Interaction

OPTIONS = events.ImportOptions(lambda name: f"hash({name})")


@pytest.fixture
def brought(store, tmp_path):
    """Imports rows as lines, in the format they are recognised to have: returns the `feedback`, the
    `interactions` by id, the `report`, the `format`, and in short what was `said`: type, target, name, value
    or text, and who said it."""

    def bring(*rows, options=OPTIONS):
        path = tmp_path / "events.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        format = events.format_of(path)
        assert format is not None
        report = events.import_events(path, format, store.log, options)
        feedback = [each for _, each in store.log.read(Feedback)]
        said = [_said(each) for each in feedback]
        calls = {i.id: i for _, i in store.log.read(Interaction)}
        return SimpleNamespace(feedback=feedback, interactions=calls, report=report, format=format, said=said)

    return bring


def _said(event):
    kind, who = type(event).__name__.lower(), event.subject.removeprefix("hash(").removesuffix(")")
    if kind == "choice":
        return kind, event.shown_order, event.name, event.winner, who
    if kind == "rating":
        return kind, event.target, event.name, event.value, who
    return kind, event.target, None, event.text, who
