"""Items that a model was trained on void a comparison, as far as the store knows."""

import json

from escultor.config import Gate
from escultor.cycle import gate_service, leaks
from escultor.evaluate.gate.decision import decide
from escultor.ids import plain
from escultor.skills.suites import make_suite, register
from escultor.store import open_store
from escultor.types import (
    Checkpoint,
    DatasetVersion,
    Example,
    Hold,
    Message,
    Origin,
    Role,
    Sampling,
    Scores,
    SuiteItem,
)


def user(text):
    return (Message(Role.USER, text),)


def checkpoint(id, dataset, *parents):
    return Checkpoint(id, id, "sft", parents, "", dataset, "", 0, 1)


def dataset(store, hash, *prompts):
    rows = [Example(p, user(p), "yes", Origin((p,), "test/1")) for p in prompts]
    blob = store.blobs.put_bytes("".join(json.dumps(plain(row)) + "\n" for row in rows).encode())
    store.log.append(DatasetVersion(hash, hash, "example", len(rows), {}, blob))


def asked_suite(store):
    items = [SuiteItem(f"i{n}", user(f"what is {n}?"), f"c{n}", ("it",)) for n in range(60)]
    suite = make_suite("asked", "chat", items, ["exact_match"], Sampling(max_new_tokens=2))
    register(store, suite)
    return suite


def test_a_prompt_of_the_lineages_data_voids_its_items_and_no_others(tmp_path):
    with open_store(str(tmp_path / "store")) as store:
        suite = asked_suite(store)
        dataset(store, "d1", "what is 3?", "what is love?")
        dataset(store, "d2", "what is 7?")
        dataset(store, "d3", "what is 9?")
        store.log.append(checkpoint("base", "d1"), checkpoint("new", "d2", "base"), checkpoint("x", "d3"))
        void = {"i3": leaks.REASON, "i7": leaks.REASON}
        assert leaks.trained_on(store, suite.id, "new", "elsewhere") == void
        assert leaks.trained_on(store, suite.id, "new") == void  # from what was read before
        assert leaks.trained_on(store, suite.id, "base") == {"i3": leaks.REASON}
        assert leaks.trained_on(store, "no suite of this store", "new") == {}


def test_the_gate_holds_what_was_trained_on_its_suite(tmp_path):
    with open_store(str(tmp_path / "store")) as store:
        suite = asked_suite(store)
        dataset(store, "d", "what is 3?")
        store.log.append(checkpoint("new", "d"))
        ids = tuple(item.id for item in suite.items)
        sides = [
            Scores(name, name, suite.id, ids, suite.clusters, {"exact_match": (value,) * 60})
            for name, value in (("old", 0.0), ("new", 1.0))
        ]
        policy = Gate(primary=("exact_match",), guards={})
        context = gate_service.context_of(store, sides[0], sides[1], policy)
        verdict = decide(sides[0], sides[1], policy, 0, context)
    assert isinstance(verdict, Hold)
    assert "1 of 60 items may not be used (trained on)" in verdict.because.reason
