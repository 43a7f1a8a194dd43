"""Two sides share no prompt, and what is held out never reaches training."""

import random
from collections import Counter

import pytest
from curate_rows import changed, jsonl, text
from hypothesis import given
from hypothesis import strategies as st

from escultor.config.curation import Curation
from escultor.datasets.build import build_dataset
from escultor.datasets.curation.pipeline import curate
from escultor.datasets.held_out import NEAR, SAME, HeldOutGuard, hold_out, load_guard, prompt_of, prompts_of
from escultor.datasets.rows import prompt_text, read_line
from escultor.datasets.similarity.phrases import Phrases
from escultor.datasets.versions import read_rows
from escultor.errors import DataError
from escultor.store import open_store
from escultor.text.shingles import jaccard, shingle_set
from escultor.types import Document, Example, HeldOut, Message, Origin, Pair, Role


def rows(count=60):
    """Three answers to each prompt: to the prompt itself, to itself again, and to it with a word changed."""
    draw = random.Random(0)
    for i in range(count):
        asked = text(f"q{i}", 30)
        for k, prompt in enumerate((asked, asked, changed(asked, i))):
            about = {"subject": f"s{draw.randrange(12)}", "time": draw.random()}
            yield {"prompt": prompt, "completion": text(f"a{i}{k}", 30), **about}


def parted(tmp_path, by, share=0.3):
    source = jsonl(tmp_path / "in.jsonl", *rows())
    settings = {"workers": 1, "steps": ["exact"], "split": {"by": by, "held_out": share}}
    made = curate([source], tmp_path / "out", Curation.model_validate(settings))
    sides = [
        [read_line("example", line) for line in p.read_bytes().splitlines()]
        for p in (made.rows, made.held_out)
    ]
    return made, *sides


@pytest.mark.parametrize("by", ["prompt", "subject", "time"])
def test_no_prompt_is_nearly_on_both_sides(tmp_path, by):
    made, train, held = parted(tmp_path, by)
    assert held
    known = [shingle_set((("prompt", prompt_text(row.item)),)) for row in held]
    for row in train:
        own = shingle_set((("prompt", prompt_text(row.item)),))
        assert max(jaccard(own, other) for other in known) < 0.75
    left_out = made.split["left out: prompt is held out"]
    assert len(train) + len(held) + left_out == 180
    assert (left_out == 0) == (by == "prompt")


def test_subjects_stay_on_one_side_and_time_goes_forward(tmp_path):
    (tmp_path / "s").mkdir()
    _, train, held = parted(tmp_path / "s", "subject", 0.4)
    assert not {row.subject for row in train} & {row.subject for row in held}
    _, train, held = parted(tmp_path, "time", 0.1)
    assert max(row.time for row in train) < min(row.time for row in held)


def test_a_draw_by_prompt_depends_on_no_other_rows(tmp_path):
    _, _, held = parted(tmp_path, "prompt")
    few = jsonl(tmp_path / "few.jsonl", *[row for i, row in enumerate(rows()) if i // 3 % 2])
    settings = {"workers": 1, "steps": ["exact"], "split": {"held_out": 0.3}}
    made = curate([few], tmp_path / "few", Curation.model_validate(settings))
    again = {read_line("example", line).item.id for line in made.held_out.read_bytes().splitlines()}
    assert again <= {row.item.id for row in held}


def test_prompts_that_are_all_alike_stay_on_one_side_and_that_is_said(tmp_path):
    asked = text("q", 30)
    source = jsonl(tmp_path / "in.jsonl", *({"prompt": asked, "completion": text(i)} for i in range(3)))
    few, most = (
        Curation.model_validate({"workers": 1, "steps": ["exact"], "split": {"held_out": share}})
        for share in (0.02, 0.98)
    )
    made = curate([source], tmp_path / "few", few)
    assert made.counts == {"train": 3, "held out": 0}
    assert any("0% of the rows are held out where 2% were asked for" in said for said in made.warnings)
    with pytest.raises(DataError, match="all prompts are alike"):
        curate([source], tmp_path / "most", most)


def test_rows_without_a_time_are_not_parted_by_it(tmp_path):
    source = jsonl(tmp_path / "in.jsonl", {"prompt": text(1), "completion": text(2)})
    settings = {"workers": 1, "split": {"by": "time", "held_out": 0.5}, "steps": ["exact"]}
    with pytest.raises(DataError, match="without `time`"):
        curate([source], tmp_path / "out", Curation.model_validate(settings))


@pytest.mark.parametrize("workers", [1, 2])
def test_what_training_would_leave_out_is_not_on_the_training_side(tmp_path, workers):
    made = [{"prompt": text(f"q{i}", 20), "completion": text(f"a{i}", 20)} for i in range(30)]
    made += [
        {"prompt": f"{text(f'w{i}', 60)} {text(f'q{i}', 20)}", "completion": text(f"b{i}", 20)}
        for i in range(30)
    ]
    source = jsonl(tmp_path / "in.jsonl", *made)
    wanted = {"workers": workers, "language": {"keep": []}, "split": {"held_out": 0.4}}
    with open_store(str(tmp_path / "store")) as store:
        first, found = build_dataset(store, "x", [source], Curation.model_validate(wanted))
        again, _ = build_dataset(store, "x", [source], Curation.model_validate(wanted))
        assert again == first
        assert found.split["left out: prompt is held out"] > 3
        rows = [row.item for row in read_rows(store, first)]
        counts: Counter[str] = Counter()
        assert load_guard(store).allowed(rows, counts) == rows
    assert len(rows) + found.split["left out: prompt is held out"] + found.counts["held out"] == 60


# --- the guard ----------------------------------------------------------------------------------


def asked(said: str, id: str = "x") -> Example:
    return Example(id, (Message(Role.USER, said),), "yes", Origin(("t",), "test/1"))


def test_a_held_out_prompt_is_told_word_for_word_and_nearly(tmp_path):
    with open_store(str(tmp_path / "store")) as store:
        held = [asked(text(i)) for i in range(50)]
        record = hold_out(store, "suite", held)
        assert record is not None
        assert hold_out(store, "again", reversed(held)) == record
        assert store.log.count(HeldOut) == 1
        assert hold_out(store, "none", []) is None
        free = [asked(text(f"free{i}")) for i in range(50)]
        near = [asked(changed(text(i), i)) for i in range(50)]
        counts: Counter[str] = Counter()
        assert load_guard(store).allowed([*free, *held, *near], counts) == free
        assert counts == {SAME: 50, NEAR: 50}


def test_a_guard_of_nothing_lets_everything_through():
    counts: Counter[str] = Counter()
    assert HeldOutGuard([]).allowed([asked("a")], counts) == [asked("a")]
    assert not counts


def test_prompts_of_registered_suites_are_held_out(tmp_path):
    from escultor.skills.suites import make_suite, register
    from escultor.types import Sampling, SuiteItem

    item = SuiteItem("1", (Message(Role.USER, text(1)),), "1", ("yes",), document=text(2))
    with open_store(str(tmp_path / "store")) as store:
        register(store, make_suite("suite", "chat", [item], ["exact_match"], Sampling()))
        counts: Counter[str] = Counter()
        rows = [asked(text(1)), asked(text(2)), asked(text(3))]
        assert load_guard(store).allowed(rows, counts) == rows[2:]
        assert counts == {SAME: 1, NEAR: 1}
        assert prompt_of(rows[0]).text == text(1)


# --- by every road ------------------------------------------------------------------------------

QUESTION = "Ana sells 3 apples a day, how many apples does she sell in five weeks?"


def talk(*said: tuple[Role, str]) -> Example:
    return Example("t", tuple(Message(role, words) for role, words in said), "105", Origin(("t",), "test/1"))


ROADS = {
    "as it is": [asked(QUESTION)],
    "white space and case": [asked(f"  {QUESTION.upper()}\n\t")],
    "punctuation": [asked(QUESTION.replace(",", " -").replace("?", " ..."))],
    "full width": [asked("".join(chr(ord(c) + 0xFEE0) if c.isalnum() else c for c in QUESTION))],
    "a word changed": [asked(QUESTION.replace("Ana", "Eva"))],
    "a system's words": [talk((Role.SYSTEM, text("s", 60)), (Role.USER, QUESTION))],
    "nearly, a system's words": [
        talk((Role.SYSTEM, text("s", 60)), (Role.USER, QUESTION.replace("Ana", "Eva")))
    ],
    "an earlier turn": [
        talk((Role.USER, QUESTION), (Role.ASSISTANT, "105"), (Role.USER, text("next", 40))),
    ],
    "a later turn": [talk((Role.USER, text("first", 40)), (Role.ASSISTANT, "Yes."), (Role.USER, QUESTION))],
    "behind instructions": [asked(f"{text('i', 50)}\n\nQuestion: {QUESTION}\nAnswer:")],
    "nearly, behind instructions": [asked(f"{text('i', 50)}\n\n{QUESTION.replace('Ana', 'Eva')}\nAnswer:")],
    "in a document": [Document("d", f"{text('d', 80)} {QUESTION} {text('e', 80)}", Origin(("d",), "test/1"))],
    "as the question of a pair": [Pair("p", asked(QUESTION).prompt, "105", "15", Origin(("p",), "test/1"))],
}


@pytest.mark.parametrize("road", ROADS)
@pytest.mark.parametrize("held", [asked(QUESTION), talk((Role.SYSTEM, text("h", 50)), (Role.USER, QUESTION))])
def test_a_held_out_prompt_enters_by_no_road(tmp_path, road, held):
    with open_store(str(tmp_path / "store")) as store:
        hold_out(store, "suite", [held])
        counts: Counter[str] = Counter()
        assert load_guard(store).allowed(ROADS[road], counts) == []
        assert counts.total() == 1


def test_private_data_that_was_redacted_before_it_was_held_out_hides_no_prompt():
    raw = asked("Write to ana.maria.silva@mail.example.org and bob.jones@example.com that I am late")
    curated = asked("Write to [EMAIL] and [EMAIL] that I am late")
    counts: Counter[str] = Counter()
    assert HeldOutGuard([prompt_of(curated)]).allowed([raw], counts) == []
    assert counts == {NEAR: 1}


def test_what_is_asked_in_every_talk_keeps_no_talk_out():
    why = talk((Role.USER, text("a", 30)), (Role.ASSISTANT, "Yes."), (Role.USER, "Why?"))
    other = talk((Role.USER, text("b", 30)), (Role.ASSISTANT, "No."), (Role.USER, "Why?"))
    longer = talk((Role.USER, "Hello"), (Role.ASSISTANT, "Hi."), (Role.USER, text("c", 30)))
    counts: Counter[str] = Counter()
    guard = HeldOutGuard([prompt_of(why), prompt_of(asked("Hello"))])
    assert guard.allowed([other, longer], counts) == [other, longer]
    assert guard.allowed([why, asked("hello!")], counts) == []


@given(
    st.lists(st.lists(st.sampled_from("abcdefg"), min_size=8, max_size=14), min_size=1, max_size=12),
    st.lists(st.lists(st.sampled_from("abcdefg"), max_size=30), min_size=1, max_size=8),
)
def test_phrases_are_found_where_they_stand_and_nowhere_without_a_run_of_theirs(phrases, texts):
    found = Phrases([" ".join(p) for p in phrases]).within([" ".join(t).upper() for t in texts])
    for is_found, words in zip(found, texts, strict=True):
        pieces = {tuple(words[i : i + 8]) for i in range(len(words) - 7)}
        assert is_found or not any(words[i : i + len(p)] == p for p in phrases for i in range(len(words)))
        assert not is_found or any(tuple(p[i : i + 8]) in pieces for p in phrases for i in range(len(p) - 7))


def test_prompts_of_one_template_are_not_taken_for_each_other():
    draw = random.Random(0)
    names = [f"{draw.choice('bcdfg')}{draw.choice('aeiou')}{i}" for i in range(80)]
    template = f"{text('template', 60)} What is the capital of {{}} and who has lived there for so long?"
    made = [asked(template.format(name)) for name in names]
    phrases = Phrases([prompt_of(item).text for item in made[:40]])
    assert phrases.within([prompt_of(item).text + " " + text(i, 90) for i, item in enumerate(made)]) == [
        i < 40 for i in range(80)
    ]


# --- conversations ----------------------------------------------------------------------------


def conversations(count=40):
    """Rows of talks: the first question alone, the talk after its first answer, and after its second; talks
    after another first answer; and talks that a common greeting begins."""
    for i in range(count):
        one, two, three = (text(f"q{i}.{k}", 30) for k in range(3))
        first, second = text(f"a{i}.0", 30), text(f"a{i}.1", 30)
        ask = lambda content: {"role": "user", "content": content}  # noqa: E731
        say = lambda content: {"role": "assistant", "content": content}  # noqa: E731
        talk = [ask(one), say(first), ask(two)]
        yield i, {"prompt": talk, "completion": second}
        yield i, {"prompt": [*talk, say(second), ask(three)], "completion": text(f"a{i}.2", 30)}
        if i % 2:
            yield i, {"prompt": one, "completion": first}
            yield i, {"prompt": [ask(one), say(text(f"b{i}", 30)), ask(three)], "completion": first}
        yield (
            f"hello {i}",
            {"prompt": [ask("Hello"), say("Hi!"), ask(text(f"h{i}", 30))], "completion": first},
        )
        yield f"named {i}", {"prompt": text(f"n{i}.0", 30), "completion": first, "conversation": f"talk {i}"}
        yield f"named {i}", {"prompt": text(f"n{i}.1", 30), "completion": first, "conversation": f"talk {i}"}


def test_turns_of_a_conversation_stay_on_one_side(tmp_path):
    made = list(conversations())
    owner = {str(number): talk for number, (talk, _) in enumerate(made)}
    source = jsonl(tmp_path / "in.jsonl", *(row | {"id": str(n)} for n, (_, row) in enumerate(made)))
    settings = {"workers": 1, "steps": ["exact"], "split": {"held_out": 0.3}}
    curated = curate([source], tmp_path / "out", Curation.model_validate(settings))
    train, held = (
        {owner[read_line("example", line).item.id] for line in path.read_bytes().splitlines()}
        for path in (curated.rows, curated.held_out)
    )
    assert not train & held
    assert len(train) + len(held) == 3 * 40
    assert 20 <= len(held) <= 60  # a greeting that many talks share does not make one of them


def test_a_conversation_that_learns_a_held_out_prompt_in_an_earlier_turn_is_left_out():
    asked_before, other = text("q", 6), text("other", 30)
    turns = (
        Message(Role.USER, asked_before),
        Message(Role.ASSISTANT, "b", learnt=True),
        Message(Role.USER, other),
    )
    row = Example("r", turns, "c", Origin((), "test"))
    alone = Example("s", turns[:1], "b", Origin((), "test"))
    counts = Counter()
    assert HeldOutGuard([prompt_of(alone)]).allowed([row], counts) == []
    assert counts == {SAME: 1}
    assert HeldOutGuard(prompts_of(row)).allowed([alone], counts) == []
