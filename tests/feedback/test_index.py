"""A log read in pieces comes to what it comes to when it is read at once; nothing new costs nothing."""

import random
import sqlite3
from dataclasses import replace

import pytest
from feedback_records import DAY, NOW, choice, correction, interaction, revocation, thumb

from escultor import code_closure
from escultor.config import FeedbackRules
from escultor.datasets.held_out import hold_out
from escultor.errors import StoreError
from escultor.feedback import conversion, drafting, index, index_tables, raw_log, trust
from escultor.feedback.conversion import convert, open_index, read_items, record
from escultor.feedback.selection import KINDS, SelectionQuery
from escultor.process_pool import ProcessPool
from escultor.store import open_store
from escultor.store.feedback import live
from escultor.types import DatasetVersion, Erasure, Feedback, Interaction, Pair, QuarantineOverride, Rating

SETTINGS = FeedbackRules()
LONG = "The result is forty two, since six times seven is forty two."


def history(people: int = 30, seed: int = 0) -> list[Interaction | Feedback]:
    """A few weeks in the order of the log: answers, regenerations, all kinds of verdict, an anomaly."""
    draw = random.Random(seed)
    found: list[Interaction | Feedback] = []
    for person in range(people):
        for n in range(4):
            who, first, second = f"p{person}", f"a{person}-{n}", f"b{person}-{n}"
            prompt = f"question {person % 10} {n}"
            found.append(interaction(first, prompt, f"{LONG} {first}", subject=who))
            events = [thumb(first, draw.random() < 0.5, who, draw.random() * 20 * DAY)]
            if draw.random() < 0.5:
                found.append(interaction(second, prompt, f"{LONG} {second}", first, subject=who))
                events.append(thumb(second, draw.random() < 0.7, who, draw.random() * 20 * DAY))
                events.append(choice((first, second), draw.choice((first, second)), f"p{person + 1}"))
            if draw.random() < 0.2:
                events.append(correction(first, f"{LONG} {first} Yes.", who))
            if draw.random() < 0.1:
                events.append(revocation(first, who, 30 * DAY))
            found += events
    for n in range(60):
        found.append(interaction(f"m{n}", f"say {n}", f"As we know, {n}.", subject="mallory"))
        found.append(thumb(f"m{n}", True, "mallory", 1000.0 + n))
    return found


def everything(store) -> dict[str, list]:
    made = convert(store, SETTINGS, SelectionQuery(NOW))
    return {kind: read_items(store, made, kind) for kind in made.rows}


@pytest.mark.parametrize("pieces", [2, 5])
def test_a_log_read_in_pieces_gives_the_same_items(tmp_path, pieces):
    events = history()
    with open_store(str(tmp_path / "whole")) as whole, open_store(str(tmp_path / "parts")) as parts:
        whole.log.append(*events)
        step = len(events) // pieces + 1
        for at in range(0, len(events), step):
            parts.log.append(*events[at : at + step])
            everything(parts)
        assert everything(parts) == everything(whole)
        assert len(everything(whole)["pair"]) > 30
        first, second = (convert(store, SETTINGS, SelectionQuery(NOW)).card for store in (whole, parts))
        assert first == second


@pytest.mark.parametrize("place", ["measure_standings", "redraft"])
@pytest.mark.parametrize("known", [0, 150])
@pytest.mark.parametrize(
    "later", [[], [interaction("z", "something new"), thumb("z", True)]], ids=["none", "more"]
)
def test_a_read_that_was_killed_between_its_steps_is_resumed(tmp_path, monkeypatch, place, known, later):
    events = mixed()
    with open_store(str(tmp_path / "whole")) as whole, open_store(str(tmp_path / "killed")) as killed:
        whole.log.append(*events, *later)
        if known:
            killed.log.append(*events[:known])
            everything(killed)
        killed.log.append(*events[known:])
        with monkeypatch.context() as patch:
            patch.setattr(trust if place == "measure_standings" else drafting, place, _killed)
            with pytest.raises(KeyboardInterrupt):
                everything(killed)
        killed.log.append(*later)
        assert everything(killed) == everything(whole)
        cards = [convert(store, SETTINGS, SelectionQuery(NOW)).card for store in (killed, whole)]
        assert cards[0] == cards[1]


def _killed(*given):
    raise KeyboardInterrupt


def test_several_processes_make_what_one_does(tmp_path, monkeypatch):
    events = history(12)
    with open_store(str(tmp_path / "one")) as one, open_store(str(tmp_path / "several")) as several:
        one.log.append(*events)
        several.log.append(*events)
        alone = convert(one, SETTINGS, SelectionQuery(NOW))
        monkeypatch.setattr(raw_log, "MIN_PARALLEL", 0)
        monkeypatch.setattr(index, "ENTRIES_PER_READ", 40)
        monkeypatch.setattr(raw_log, "ANSWERS_PER_READ", 10)
        monkeypatch.setattr(drafting, "PROMPTS_PER_SPAN", 10)
        together = convert(several, SETTINGS, SelectionQuery(NOW))
    assert (together.blobs, together.card) == (alone.blobs, alone.card)
    assert together.rows["pair"] > 5


@pytest.mark.parametrize(("journal", "workers"), [("wal", 3), ("delete", 1)])
def test_where_nobody_can_read_while_somebody_writes_one_process_drafts(
    tmp_path, monkeypatch, journal, workers
):
    asked = []

    class Alone(ProcessPool):
        def __init__(self, workers, shared):
            asked.append(workers)
            super().__init__(1, shared)

    monkeypatch.setattr(index_tables, "JOURNAL", journal)
    monkeypatch.setattr(raw_log, "worker_count", lambda n: 3)
    monkeypatch.setattr(drafting, "ProcessPool", Alone)
    with open_store(str(tmp_path / "s")) as store, open_index(store, SETTINGS) as found:
        found.follow(store.log)
    assert asked == [workers]


def test_what_is_erased_while_texts_are_read_is_not_among_them(tmp_path, monkeypatch):
    write = conversion.write_rows
    with open_store(str(tmp_path / "s")) as store:
        store.log.append(
            interaction("x", subject="gone"), interaction("y"), thumb("x", True, "gone"), thumb("y", False)
        )

        def erasing(*given):
            made = write(*given)
            if store.log.count(Erasure) == 0:
                store.log.erase("gone", "the person")
            return made

        monkeypatch.setattr(conversion, "write_rows", erasing)
        assert convert(store, SETTINGS, SelectionQuery(NOW)).rows == {"example": 0, "pair": 0, "unpaired": 1}


def mixed() -> list[Interaction | Feedback]:
    """A history that ends with what items are made of, and not with a rate anomaly."""
    events = history(16)
    return events[-120:] + events[:-120]


def test_rows_that_were_written_before_are_not_looked_up_again(tmp_path, monkeypatch):
    events = mixed()
    with open_store(str(tmp_path / "whole")) as whole, open_store(str(tmp_path / "parts")) as parts:
        whole.log.append(*events)
        parts.log.append(*events[: len(events) - 40])
        first = convert(parts, SETTINGS, SelectionQuery(NOW))
        looked: list[str] = []
        look_up = parts.log.raw_by_id

        def counted(record_type, ids):
            looked.extend(ids)
            return look_up(record_type, ids)

        monkeypatch.setattr(parts.log, "raw_by_id", counted)
        parts.log.append(*events[len(events) - 40 :])
        again, right = (convert(store, SETTINGS, SelectionQuery(NOW)) for store in (parts, whole))
        assert again.blobs == right.blobs
        assert first.blobs != again.blobs
        assert 0 < len(set(looked)) < len(events) / 3


def test_rows_are_not_copied_from_what_is_damaged(tmp_path):
    events = mixed()
    with open_store(str(tmp_path / "whole")) as whole, open_store(str(tmp_path / "parts")) as parts:
        whole.log.append(*events)
        parts.log.append(*events[:-20])
        first = convert(parts, SETTINGS, SelectionQuery(NOW))
        path = parts.blobs.file(first.blobs["unpaired"])
        path.chmod(0o644)
        path.write_bytes(path.read_bytes().replace(b"answer", b"damage").replace(b"result", b"damage"))
        parts.log.append(*events[-20:])
        assert (
            convert(parts, SETTINGS, SelectionQuery(NOW)).blobs
            == convert(whole, SETTINGS, SelectionQuery(NOW)).blobs
        )


def test_what_is_held_out_in_the_store_becomes_no_item_nearly_neither(tmp_path):
    asked = "Ana sells 3 apples a day, how many apples does she sell in five weeks?"
    with open_store(str(tmp_path / "s")) as store:
        for n, prompt in enumerate((asked, asked.upper(), "and something else")):
            store.log.append(
                interaction(f"a{n}", prompt), interaction(f"b{n}", prompt), interaction(f"c{n}", prompt)
            )
            store.log.append(thumb(f"a{n}", True, f"p{n}"), thumb(f"b{n}", False, f"p{n}"))
            store.log.append(correction(f"c{n}", f"answer c{n} with more", f"p{n}"))
        before = convert(store, SETTINGS, SelectionQuery(NOW))
        assert before.rows == {"example": 3, "pair": 6, "unpaired": 0}
        held = next(p for p in read_items(store, before, "pair") if p.prompt[0].content == asked)
        hold_out(store, "suite", [held])
        after = convert(store, SETTINGS, SelectionQuery(NOW))
        assert after.rows == {"example": 1, "pair": 2, "unpaired": 0}
        assert {k: after.card["kinds"][k]["rows"] for k in after.rows} == after.rows
        assert after.card["counts"]["left out: held-out prompt"] == 3
        assert after.card["counts"]["left out: its prompt is nearly one that is held out"] == 3


def test_with_nothing_new_nothing_is_read_or_written(tmp_path, monkeypatch):
    with open_store(str(tmp_path / "s")) as store:
        store.log.append(*history(10))
        made = convert(store, SETTINGS, SelectionQuery(NOW))
        assert not made.reused
        for name in ("raw_pages", "raw_by_id"):
            monkeypatch.setattr(store.log, name, None)
        again = convert(store, SETTINGS, SelectionQuery(NOW))
        assert again.reused
        assert (again.blobs, again.card) == (made.blobs, made.card)


def test_settings_that_drafts_do_not_depend_on_let_them_stand(tmp_path):
    with open_store(str(tmp_path / "s")) as store:
        store.log.append(*history(8))
        drafted = []
        for settings in (
            SETTINGS,
            FeedbackRules(subject_items=3, min_pairs=7),
            FeedbackRules(prompt_echo_share=0.9),
        ):
            store.log.append(QuarantineOverride(f"r{len(drafted)}", 1.0, "nothing", "to have something new"))
            convert(store, settings, SelectionQuery(NOW))
            with open_index(store, settings) as found:
                drafted += found.file.execute("select value from meta where key = 'drafted'").fetchone()
        assert drafted[0] == drafted[1] != drafted[2]


def test_the_index_folds_as_the_store_does(tmp_path):
    events = history(12)
    with open_store(str(tmp_path / "s")) as store:
        store.log.append(*events)
        with open_index(store, SETTINGS) as index:
            index.follow(store.log)
            rows = index.file.execute(
                "select target, subject, name, id from live where withdrawn = 0 union all "
                "select target, subject, name, id from choices where withdrawn = 0"
            ).fetchall()
    said_events = [e for e in events if not isinstance(e, Interaction)]
    assert set(rows) == {(*key, event.id) for key, event in live(said_events).items()}


def test_feedback_that_came_before_its_answer_is_resolved_when_that_comes(tmp_path):
    with open_store(str(tmp_path / "s")) as store:
        store.log.append(thumb("a", True), thumb("b", False), interaction("a"))
        made = convert(store, SETTINGS, SelectionQuery(NOW))
        assert made.rows == {"example": 0, "pair": 0, "unpaired": 1}
        assert made.card["counts"]["waiting: about an answer that is not known"] == 1
        store.log.append(interaction("b"))
        assert convert(store, SETTINGS, SelectionQuery(NOW)).rows["pair"] == 1


def test_a_regeneration_that_comes_later_takes_back_what_was_kept(tmp_path):
    with open_store(str(tmp_path / "s")) as store:
        store.log.append(interaction("a"), interaction("b", parent="a"), thumb("b", True))
        assert convert(store, SETTINGS, SelectionQuery(NOW)).rows["pair"] == 1
        store.log.append(interaction("c", parent="b"))
        assert convert(store, SETTINGS, SelectionQuery(NOW)).rows["pair"] == 0


def test_what_was_erased_leaves_the_index_and_the_data(tmp_path):
    with open_store(str(tmp_path / "s")) as store:
        store.log.append(*history(12))
        store.log.append(interaction("x", subject="gone"), interaction("y", subject="stays"))
        store.log.append(thumb("x", True, "gone"), thumb("y", False, "stays"), thumb("y", False, "gone"))
        store.log.append(correction("y", "answer y, and why", "gone"))
        before = everything(store)
        assert any(pair.chosen == "answer x" for pair in before["pair"])
        store.log.erase("gone", "the person")
        after = everything(store)
        texts = {p.chosen for p in after["pair"]} | {v.response for v in after["unpaired"]}
        assert "answer x" not in texts
        assert "answer y" in texts
        with open_index(store, SETTINGS) as index:
            tables = ("live where subject = 'gone'", "edits where id not in (select id from live)")
            rows = [index.file.execute(f"select count(*) from {t}").fetchone() for t in tables]
        assert rows == [(0,), (0,)]


def test_answers_whose_retention_is_over_leave_the_index_and_the_data(tmp_path):
    with open_store(str(tmp_path / "s")) as store:
        store.log.append(*history(12))
        kept_days = {"x": 1, "y": 9}
        store.log.append(
            *(replace(interaction(id), retain_until=NOW + days * DAY) for id, days in kept_days.items())
        )
        store.log.append(thumb("x", True), thumb("y", False))
        assert any(pair.chosen == "answer x" for pair in everything(store)["pair"])
        store.log.purge(NOW + DAY)
        after = everything(store)
        texts = {p.chosen for p in after["pair"]} | {v.response for v in after["unpaired"]}
        assert "answer x" not in texts
        assert "answer y" in texts
        with open_index(store, SETTINGS) as index:
            tables = ("answers where id = 'x'", "live where target = 'x'")
            rows = [index.file.execute(f"select count(*) from {t}").fetchone() for t in tables]
        assert rows == [(0,), (0,)]


def test_a_purge_of_answers_leaves_what_people_without_a_name_said(tmp_path):
    with open_store(str(tmp_path / "s")) as store:
        store.log.append(replace(interaction("x"), retain_until=NOW), interaction("y", "q", subject=""))
        store.log.append(thumb("x", True), thumb("y", True, ""))
        everything(store)
        store.log.purge(NOW + DAY)
        assert [v.response for v in everything(store)["unpaired"]] == ["answer y"]


def test_a_released_entry_counts_and_so_does_a_single_event(tmp_path):
    with open_store(str(tmp_path / "s")) as store:
        store.log.append(*history())

        def theirs():
            found = everything(store)["unpaired"]
            return [v for v in found if v.response.startswith("As we know")]

        assert theirs() == []
        with open_index(store, SETTINGS) as index:
            held = [entry for entry in index.standings().quarantine if entry.subject == "mallory"]
        assert {entry.rule for entry in held} == {"rate_anomaly"}
        one = next(e for e in history() if isinstance(e, Rating) and e.target == "m7")
        store.log.append(QuarantineOverride("r0", 1.0, one.id, "I know what this was"))
        assert [v.response for v in theirs()] == ["As we know, 7."]
        store.log.append(
            *(QuarantineOverride(f"r-{entry.id}", 2.0, entry.id, "a class of pupils") for entry in held)
        )
        assert len(theirs()) > 1


def test_another_log_or_a_damaged_file_is_read_anew(tmp_path):
    with open_store(str(tmp_path / "s")) as store:
        store.log.append(*history(8))
        right = everything(store)
        (path,) = (tmp_path / "s" / "cache").glob("feedback-*.sqlite")
        path.write_bytes(b"no database at all" * 100)
        for end in ("-wal", "-shm"):
            path.with_name(path.name + end).unlink(missing_ok=True)
        assert everything(store) == right
        with sqlite3.connect(path) as file:
            file.execute("update meta set value = '1:interaction another' where key = 'mark'")
        file.close()
        assert everything(store) == right


def test_what_is_recorded_is_named_by_its_content_once(tmp_path):
    with open_store(str(tmp_path / "s")) as store:
        store.log.append(*history(12))
        made = convert(store, SETTINGS, SelectionQuery(NOW))
        versions = record(store, made, "june")
        assert {v.kind for v in versions} == {kind for kind, n in made.rows.items() if n}
        assert [v.hash for v in record(store, made, "july")] == [v.hash for v in versions]
        assert store.log.count(DatasetVersion) == len(versions)
        pairs = read_items(store, made, "pair")
        assert all(isinstance(pair, Pair) and pair.flip_rate > 0 for pair in pairs)
        assert len(pairs) == next(v.rows for v in versions if v.kind == "pair")


def edited(monkeypatch, name: str) -> None:
    """The next versions of code are those after an edit of this file of the package."""
    digest = code_closure._digest
    monkeypatch.setattr(
        code_closure, "_digest", lambda path: "edited" if str(path).endswith(name) else digest(path)
    )
    code_closure._version.cache_clear()


@pytest.mark.parametrize(
    ("name", "is_reused"),
    [
        ("cli/feedback.py", True),
        ("train/loop.py", True),
        ("feedback/labelling_rules.py", False),
        ("feedback/weighting.py", False),
    ],
)
def test_a_conversion_is_reused_until_code_that_decides_it_is_edited(tmp_path, monkeypatch, name, is_reused):
    with open_store(str(tmp_path / "s")) as store:
        store.log.append(*history(8))
        first = convert(store, SETTINGS, SelectionQuery(NOW))
        edited(monkeypatch, name)
        again = convert(store, SETTINGS, SelectionQuery(NOW))
    monkeypatch.undo()
    code_closure._version.cache_clear()
    assert again.reused is is_reused
    assert again.blobs == first.blobs


@pytest.mark.parametrize(("name", "is_kept"), [("selection.py", True), ("trust.py", False)])
def test_the_index_is_rebuilt_after_an_edit_of_code_that_decides_it(tmp_path, monkeypatch, name, is_kept):
    with open_store(str(tmp_path / "s")) as store:
        store.log.append(*history(8))
        convert(store, SETTINGS, SelectionQuery(NOW))
        edited(monkeypatch, f"feedback/{name}")
        read = []
        monkeypatch.setattr(index, "ProcessPool", lambda *given: read.append(given) or ProcessPool(*given))
        with open_index(store, SETTINGS) as followed:
            followed.follow(store.log)
    monkeypatch.undo()
    code_closure._version.cache_clear()
    assert (read == []) is is_kept


def test_an_index_of_an_earlier_version_is_deleted_since_it_would_keep_what_is_erased(tmp_path):
    with open_store(str(tmp_path / "s")) as store:
        old = store.root / "cache" / "routes-0123456789ab.sqlite"
        old.parent.mkdir(exist_ok=True)
        old.write_bytes(b"")
        with open_index(store, SETTINGS):
            pass
        assert not old.exists()


def test_what_breaks_the_schema_of_its_skill_is_not_taught_and_is_counted(tmp_path):
    """Corrections and liked answers alike; a disliked answer may break it, since nobody learns to say it."""
    schema = '{"type": "object", "required": ["queue"]}'
    right, wrong, other = '{"queue": "billing"}', '{"desk": "billing"}', "billing"
    with open_store(str(tmp_path / "store")) as store:
        for n, (skill, answer, said) in enumerate(
            (
                ("support", wrong, correction("a0", right)),
                ("support", wrong, correction("a1", '{"desk": "technical"}')),
                ("support", right, thumb("a2", True)),
                ("support", wrong, thumb("a3", True)),
                ("support", wrong, thumb("a4", False)),
                ("chat", other, thumb("a5", True)),
            )
        ):
            store.log.append(interaction(f"a{n}", f"which queue is number {n}", answer, skill=skill), said)
        before = convert(store, SETTINGS, SelectionQuery(NOW))
        made = convert(store, SETTINGS, SelectionQuery(NOW, schemas=(("support", schema),)))
        taught = {item.response for item in read_items(store, made, "example")}
        liked = {item.response for item in read_items(store, made, "unpaired") if item.desirable}
        assert taught | liked == {right, other}
        assert [i.desirable for i in read_items(store, made, "unpaired")].count(False) == 1
        lost = sum(before.rows.values()) - sum(made.rows.values())
        assert made.card["counts"]["left out: breaks the schema of the skill support"] == lost > 1


def test_a_judged_answer_without_text_is_left_out_and_counted(tmp_path):
    """A model gone wrong answers nothing, and people say so: what is converted can be read again."""
    with open_store(str(tmp_path / "store")) as store:
        for n, answer in enumerate(("a fair answer", " \n", "")):
            store.log.append(interaction(f"a{n}", f"question {n}", answer), thumb(f"a{n}", n == 0))
        made = convert(store, SETTINGS, SelectionQuery(NOW))
        rows = [item for kind in KINDS for item in read_items(store, made, kind)]
    assert {item.response for item in rows} == {"a fair answer"}
    assert sum(made.rows.values()) == len(rows)
    assert made.card["counts"]["left out: an empty prompt or answer"] == 2


def test_a_full_disk_does_not_remove_a_file_that_is_whole(tmp_path, monkeypatch):
    path = tmp_path / "index.sqlite"
    index_tables.open_file(path).close()
    whole = path.read_bytes()
    limited = "pragma max_page_count = 1; create table more (a);"  # one more page is needed than allowed
    monkeypatch.setattr(index_tables, "_TABLES", limited)
    with pytest.raises(StoreError, match="full"):
        index_tables.open_file(path)
    assert path.read_bytes() == whole
