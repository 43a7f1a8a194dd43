"""After an erasure no byte of what a person wrote is left in the store's folder, wherever it was written to;
what was interrupted is finished by the next start; datasets go on without the rows."""

import html
import json
import os
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from escultor.config import Config
from escultor.datasets import erasure
from escultor.datasets.erasure import erase_everywhere, finish_erasures
from escultor.datasets.provenance import derived_from
from escultor.datasets.review import record_review
from escultor.datasets.rows import CurationRow, write_line
from escultor.datasets.versions import (
    find_version,
    give_name,
    load_card,
    read_rows,
    save_version,
    versions_named,
)
from escultor.errors import DataError, EscultorError, InputError
from escultor.feedback.conversion import convert, record
from escultor.feedback.selection import SelectionQuery
from escultor.skills.suites import make_suite, register
from escultor.store import files, open_store
from escultor.types import (
    Checkpoint,
    Correction,
    Example,
    HeldOut,
    Implicit,
    ImplicitEvent,
    Interaction,
    Message,
    Origin,
    Rating,
    Remark,
    Review,
    Role,
    Sampling,
    Suite,
    SuiteItem,
    ToolCall,
    ToolDefinitions,
    Usage,
)

MARK = "zqxsecretzqx"
TEXTS = st.sampled_from(
    [
        "",
        "]",
        '"',
        '\\"',
        "\\",
        "]}",
        '"parents": ["a"]',
        "\n",
        "\u2028",
        "\x00",
        "é",
        "&amp;a&lt;",
        "x" * 5000,
        "{",
        "'",
    ]
)
IDS = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=6)


def interaction(id, subject, *texts, tools=""):
    content, answer, reasoning, arguments, label = (*texts, *[""] * 5)[:5]
    return Interaction(
        id, 1.0, "chat", subject, "v1", "champion", 1.0, (Message(Role.USER, content or "q"),), answer or "a",
        "stop", Sampling(), Usage(1, 1), 9.0, None, 0.0, "h", reasoning=reasoning,
        message=label.replace("\0", ""),  # what a row is found by holds none
        tool_calls=(ToolCall("c", "f", arguments),), tools=tools,
    )  # fmt: skip


def example(id, text, *parents):
    return Example(id, (Message(Role.USER, f"{text} asked {id}"),), text or "a", Origin(parents, "rule"))


def save(store, name, *items, held_out=(), kind="example"):
    paths = []
    for part, rows in (("train", items), ("held", held_out)):
        path = store.root / f"{part}.tmp"
        path.write_bytes(b"".join(write_line(CurationRow(item, "test")) for item in rows))
        paths.append(path)
    version = save_version(
        store, name, kind=kind, train=paths[0], held_out=paths[1] if held_out else None, counts={},
        card=lambda hash: {"format": "card/1", "hash": hash, "kind": kind, "rows": len(items), "counts": {}},
    )  # fmt: skip
    for path in paths:
        path.unlink()
    return version


def item(id, text="", *parents):
    prompt = (Message(Role.USER, f"{text} What is the capital of France?"),)
    return SuiteItem(id, prompt, id, references=("Paris",), parents=parents)


def write_elsewhere(root, said):
    """What a person wrote, in the forms and places in which commands write it, and a file without it."""
    for name, content in {
        "cache/judge.jsonl": MARK,
        "cache/evaluations/a.jsonl": json.dumps({"key": "k", "value": [f"about {said[0]}, said the model"]}),
        "verdicts/v1/verdict.html": f"<p>{html.escape(said[5])[:9000]}</p>",
        "verdicts/v1/inputs/a.json": json.dumps(json.dumps(said[1], ensure_ascii=False)),
        "exports/interactions.jsonl": json.dumps({"messages": [{"content": said[5]}]}, ensure_ascii=False),
        "runs/one/metrics.jsonl": "\n" * 70_000 + json.dumps({"sample": said[0]}),
        "runs/other/run.json": json.dumps({"question": "What is the capital of France?"}),
    }.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")


def files_with(root, mark):
    """The files below a folder in whose content or name a text occurs."""
    paths = [path for path in root.rglob("*") if path.is_file()]
    return [str(p.relative_to(root)) for p in paths if mark.encode() in p.read_bytes() or mark in str(p)]


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(texts=st.lists(TEXTS, min_size=6, max_size=6), id=IDS, others=st.integers(0, 30))
def test_no_byte_of_what_a_person_wrote_is_left(tmp_path_factory, texts, id, others):
    root = tmp_path_factory.mktemp("law") / "store"
    said = [f"{text}{MARK}{text}" for text in texts]
    own, event = f"{MARK}{id}", f"event{MARK}{id}"
    with open_store(str(root)) as store:
        tools = ToolDefinitions(f"tools-{MARK}", said[5])
        shared = ToolDefinitions("tools-shared", "[]")
        for n in range(others):
            store.log.append(interaction(f"other{n}", "bob", f"question {n} " * n, tools=shared.id))
        store.log.append(tools, shared, interaction(own, "ann", *said, tools=tools.id))
        store.log.append(interaction(f"{own}2", "ann", *said[::-1], tools=shared.id))
        store.log.append(
            Correction(event, 2.0, own, "ann", said[0]),
            Remark(f"{event}1", 2.0, own, "bob", said[1]),
            Rating(f"{event}2", 2.0, own, "ann", "thumb", True),
            Implicit(f"{event}3", 2.0, own, "ann", ImplicitEvent.COPY, None),
        )
        rules = Config().feedback
        record(store, convert(store, rules, SelectionQuery(now=3.0)), "made")
        first = save(
            store, "first", example("one", said[2], event), example("two", "kept", "other0"),
            held_out=[example("three", said[3], own), example("four", "kept too", "other1")],
        )  # fmt: skip
        save(store, "second", example(f"five{MARK}", said[4], "one"), example("six", "kept", "two"))
        record_review(store, first.hash, "one", reviewer="r", decision="edit", order="uniform", text=said[0])
        record_review(store, first.hash, "two", reviewer="r", decision="accept", order="uniform")
        register(store, make_suite("public", "chat", [item("p")], ["exact_match"], Sampling()))
        suite = make_suite("drawn", "chat", [item("d", said[0], own)], ["exact_match"], Sampling())
        register(store, suite)
        answers = store.blobs.put_bytes(json.dumps({"answers": [["kept"]], "prompts": said}).encode())
        write_elsewhere(root, said)
        assert files_with(root, MARK)
        erase_everywhere(store, "ann", by="ann")
        assert files_with(root, MARK) == []
        assert [row.item.id for row in read_rows(store, find_version(store, "first"))] == ["two"]
        assert [row.item.id for row in read_rows(store, find_version(store, "second"))] == ["six"]
        assert store.log.count(Interaction) == others
        assert store.log.get(ToolDefinitions, shared.id) == (shared if others else None)
        assert [r.decision for _, r in store.log.read(Review, target=find_version(store, "first").hash)] == [
            "accept"
        ]
        assert sum(h.prompts for _, h in store.log.read(HeldOut)) == 1
        assert [s.name for _, s in store.log.read(Suite)] == ["public"]
        assert answers not in store.blobs.each_bytes()
        assert (root / "runs" / "other" / "run.json").exists()
        with pytest.raises(DataError, match="erased"):
            register(store, suite)


def test_a_feedback_id_with_a_bracket_does_not_stop_an_erasure(store):
    store.log.append(interaction("a]b", "ann", MARK))
    save(store, "made", example("row", MARK, "a]b"), example("x/y", "kept", 'a"]'))
    _, derived = erase_everywhere(store, "ann", by="ann")
    assert [d.name for d in derived.datasets] == ["made"]
    assert files_with(store.root, MARK) == []


@pytest.mark.parametrize(
    "step", ["derived_from", "_retire", "_remove_blobs", "_remove_caches", "remove_traces"]
)
def test_an_interrupted_erasure_is_finished_by_the_next_start(store, step, monkeypatch):
    store.log.append(interaction("a1", "ann", MARK))
    save(store, "made", example("row", MARK, "a1"), example("other", "kept"))

    (store.root / "page.html").write_text(MARK)

    def killed(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(erasure, step, killed)
        with pytest.raises(KeyboardInterrupt):
            erase_everywhere(store, "ann", by="ann")
    assert finish_erasures(store)
    assert files_with(store.root, MARK) == []
    assert not finish_erasures(store)
    assert [row.item.id for row in read_rows(store, find_version(store, "made"))] == ["other"]


@pytest.mark.parametrize("fault", [KeyboardInterrupt, lambda: OSError(28, "full")], ids=["killed", "full"])
def test_an_erasure_that_ends_at_any_change_of_a_file_is_finished(tmp_path, fault, monkeypatch):
    def change(real):
        def changed(*arguments, **options):
            nonlocal left
            if left == 0:
                raise fault()
            left -= 1
            return real(*arguments, **options)

        return changed

    for at in range(100):
        with open_store(str(tmp_path / str(at))) as store:
            store.log.append(interaction("a1", "ann", MARK), interaction("b1", "bob", "another text"))
            save(store, "made", example("row", MARK, "a1"), example("other", "kept"))
            (store.root / "page.html").write_text(MARK)
            left = at
            with monkeypatch.context() as patched:
                for name in ("replace", "unlink", "fsync"):
                    patched.setattr(os, name, change(getattr(os, name)))
                try:
                    erase_everywhere(store, "ann", by="ann")
                    is_whole = True
                except (KeyboardInterrupt, EscultorError):
                    is_whole = False
            if store.log.get(Interaction, "a1"):  # nothing of it is done
                erase_everywhere(store, "ann", by="ann")
            finish_erasures(store)
            assert files_with(store.root, MARK) == [], at
            assert [row.id for _, row in store.log.read(Interaction)] == ["b1"]
            assert [row.item.id for row in read_rows(store, find_version(store, "made"))] == ["other"]
        if is_whole:
            break
    assert 5 < at < 99


def test_who_is_erased_while_another_erasure_is_finished_is_not_forgotten(store, monkeypatch):
    store.log.append(interaction("a1", "ann", "first text"), interaction("b1", "bob", MARK))
    save(store, "made", example("row", "first text", "a1"), example("other", MARK, "b1"))
    with monkeypatch.context() as patched:
        patched.setattr(erasure, "_remove_caches", lambda store: store.log.erase("bob", "bob"))
        erase_everywhere(store, "ann", by="ann")
    assert finish_erasures(store)
    assert files_with(store.root, MARK) == []
    assert not finish_erasures(store)


def test_names_and_hashes_mean_the_version_without_the_rows(store):
    store.log.append(interaction("a1", "ann", MARK))
    old = save(store, "made", example("row", MARK, "a1"), example("other", "kept"))
    give_name(store, "also", old.hash)
    gone = save(store, "only hers", example("hers", MARK, "a1"))
    checkpoints = [
        Checkpoint("m", "m", "sft", (), "", "rows", "", 0, 1, datasets=(old.hash,)),
        Checkpoint("n", "n", "dpo", ("m",), "", "", "", 0, 1),
    ]
    store.log.append(*checkpoints)
    event, derived = erase_everywhere(store, "ann", by="ann")
    assert [c.id for c in derived.trained] == ["m"]
    assert [c.id for c in derived.descended] == ["n"]
    assert derived.unknown == ()
    new = find_version(store, "made")
    assert new.hash != old.hash
    assert (new.rows, new.counts["erased"], load_card(store, new)["rows"]) == (1, 1, 1)
    assert find_version(store, "also").hash == find_version(store, old.hash[:8]).hash == new.hash
    assert "only hers" not in {version.name for version in versions_named(store)}
    with pytest.raises(InputError, match="no single dataset"):
        find_version(store, gone.hash)
    # It can be asked again, and by a second erasure, whose rows are others.
    assert derived_from(store, [event.id]).datasets == derived.datasets


def test_what_was_made_while_a_person_was_erased_is_found_later(store):
    store.log.append(interaction("a1", "ann", MARK))
    erase_everywhere(store, "ann", by="ann")
    save(store, "late", example("row", MARK, "a1"), example("other", "kept"))  # by a process that had read it
    assert finish_erasures(store)
    assert files_with(store.root, MARK) == []


def test_a_missing_blob_does_not_end_an_erasure(store):
    store.log.append(interaction("a1", "ann", MARK))
    lost = save(store, "lost", example("row", "text", "a1"))
    save(store, "made", example("row", MARK, "a1"), example("other", "kept"))
    store.blobs.remove_bytes(lost.blob)
    _, derived = erase_everywhere(store, "ann", by="ann")
    assert [d.name for d in derived.unreadable] == ["lost"]
    assert files_with(store.root, MARK) == []


def test_what_killed_processes_left_goes_at_once_and_what_others_write_stays(tmp_path, monkeypatch):
    with files.temporary_path(tmp_path) as path:
        path.write_text(MARK)
        dead = path.with_name(path.name.replace(str(os.getpid()), "999999999", 1))
        path.rename(dead)
        elsewhere = tmp_path / "pid999999999.otherhost-1"
        elsewhere.write_text("of another machine")
    with files.temporary_path(tmp_path):
        assert not dead.exists()
        assert elsewhere.exists()
    os.utime(elsewhere, (0, time.time() - 2 * files.STALE_S))
    with files.temporary_path(tmp_path):
        assert not elsewhere.exists()
