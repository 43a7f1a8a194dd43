"""What people prefer as metrics: a reward model finds a planted taste and knows when there is none, people's
comparisons decide, and a judge counts as far as people agree with it."""

import json
import random
from dataclasses import replace

import pytest
from tiny import ORIGIN

from escultor.config import Config, Gate
from escultor.cycle.evaluation_service import policy_of
from escultor.cycle.preferences import with_preferences
from escultor.cycle.skill_proposal import propose_skill
from escultor.errors import DataError
from escultor.evaluate.predictions import Predictions
from escultor.evaluate.raters.judge import pair_prompt
from escultor.evaluate.raters.session import make_choice, next_task, session_of
from escultor.evaluate.scoring import make_result
from escultor.serve.in_flight import draft_interaction
from escultor.skills.declaration import parse_skill
from escultor.skills.reward import fit_reward, prompt_key, read_reward, reward_text
from escultor.skills.suite_files import skill_suite
from escultor.skills.suites import register
from escultor.store import open_store
from escultor.types import Choice, Message, Pair, Promote, Role, Sampling, UnpairedExample

LETTERS = "bcdfghklmnprstvz"


def word(draw):
    return "".join(draw.choice(LETTERS) + draw.choice("aeiou") for _ in range(3))


def asked(draw):
    return (Message(Role.USER, " ".join(word(draw) for _ in range(6)) + "?"),)


def answer(draw, length):
    return " ".join(word(draw) for _ in range(length))


def pairs(n, seed=0, shuffled=False):
    """People like three to five words better than ten to twenty."""
    draw = random.Random(seed)
    made = []
    for k in range(n):
        good, bad = answer(draw, draw.randint(3, 5)), answer(draw, draw.randint(10, 20))
        if shuffled and draw.random() < 0.5:
            good, bad = bad, good
        made.append(Pair(f"p{k}", asked(draw), good, bad, ORIGIN))
    return made


def thumbs(n, shuffled=False):
    draw = random.Random(1)
    made = []
    for k in range(n):
        is_short = draw.random() < 0.5
        text = answer(draw, draw.randint(3, 5) if is_short else draw.randint(10, 20))
        liked = draw.random() < 0.5 if shuffled else is_short
        made.append(UnpairedExample(f"u{k}", asked(draw), text, liked, ORIGIN))
    return made


@pytest.mark.parametrize("rows", [(pairs(120), []), ([], thumbs(160))], ids=["pairs", "thumbs"])
def test_a_planted_preference_is_found(rows):
    model = fit_reward(*rows)
    assert model.auroc.low > 0.8
    assert model.is_better_than_chance
    draw = random.Random(5)
    short, long = (model.score(asked(draw), answer(draw, n)) for n in (4, 15))
    assert short > 0.6 > 0.4 > long


@pytest.mark.parametrize(
    "rows", [(pairs(150, shuffled=True), []), ([], thumbs(200, shuffled=True))], ids=["pairs", "thumbs"]
)
def test_shuffled_labels_are_told_from_a_preference_and_are_no_primary(rows, tmp_path):
    model = fit_reward(*rows)
    assert 0.35 < model.auroc.value < 0.65
    assert not model.is_better_than_chance
    (tmp_path / "r.json").write_text(reward_text(model))
    with pytest.raises(DataError, match="not shown to be better than chance is no primary"):
        declared(tmp_path, ["people_preference", "reward"])
    assert declared(tmp_path, ["people_preference"]).metrics[1] == "reward"  # it may still be told


def test_too_little_feedback_makes_no_reward_model():
    assert fit_reward(pairs(29), thumbs(40)) is None


def declared(folder, primary, suite=None):
    reward = {"name": "reward", "reward_model": "r.json"}
    data = {"name": "talk", "metrics": ["people_preference", reward], "primary": primary}
    return parse_skill(data | ({"suite": suite} if suite else {}), folder, "here")


def test_a_reward_model_is_never_the_only_primary_and_its_own_prompts_never_its_items(tmp_path):
    model = fit_reward(pairs(60), [])
    (tmp_path / "r.json").write_text(reward_text(model))
    assert read_reward(tmp_path / "r.json") == model
    with pytest.raises(DataError, match="never the only primary"):
        declared(tmp_path, ["reward"])
    skill = declared(
        tmp_path, ["people_preference", "reward"], [{"input": f"what is {n}?"} for n in range(3)]
    )
    suite = skill_suite(skill, Config().evaluation)
    assert json.loads(suite.record.definitions)["reward"]["auroc"] == list(model.auroc)
    (tmp_path / "talk.yaml").write_text(json.dumps({"name": "talk", "metrics": ["people_preference"]}))
    with pytest.raises(DataError, match="never the only primary"):
        policy_of(suite.record, Config(), Gate(primary=("reward",)))
    seen = pairs(60)[0].prompt[-1].content
    assert prompt_key(pairs(60)[0].prompt) in model.prompts
    with pytest.raises(DataError, match="ask what the reward model `reward` was fitted to"):
        skill_suite(declared(tmp_path, ["people_preference"], [{"input": seen}]), Config().evaluation)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format": "reward/1"}', '{"format": "reward/2"}', "[" * 10**5]
)
def test_a_file_that_holds_no_reward_model_is_named(tmp_path, text):
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(DataError, match="holds no reward model"):
        read_reward(tmp_path / "r.json")


# --- comparisons ------------------------------------------------------------------------------


def talk(folder, metric="people_preference", items=60):
    name = metric if isinstance(metric, str) else metric["name"]
    data = {"name": "talk", "metrics": [metric, "cut"], "primary": [name]}
    data["suite"] = [{"input": f"question {n} {word(random.Random(n))}"} for n in range(items)]
    (folder / "talk.yaml").write_text(json.dumps(data))
    return Config.model_validate({"skills": [str(folder / "talk.yaml")], "gate": {"min_items": 20}})


def measured(store, suite, checkpoint, texts):
    predictions = Predictions(tuple((text,) for text in texts))
    scores = make_result(suite, checkpoint, {"cut": (0.0,) * len(texts)}, {}, predictions).scores
    store.blobs.put_bytes(predictions.to_bytes())
    store.log.append(scores)
    return scores, predictions


@pytest.fixture
def sides(tmp_path):
    """A store with the scores of two models; the second one writes the shorter answers."""
    from escultor.cycle.evaluation_service import suite_of_skill
    from escultor.skills.catalog import load_skills

    with open_store(str(tmp_path / "store")) as store:

        def make(metric="people_preference"):
            config = talk(tmp_path, metric)
            suite = suite_of_skill(load_skills(config.skills)["talk"], store, config)
            register(store, suite)
            draw = random.Random(3)
            texts = [[answer(draw, n) for _ in suite.items] for n in (12, 4)]
            old, new = (measured(store, suite, c, t) for c, t in zip(("old", "new"), texts, strict=True))
            return config, suite, old, new

        yield store, make


def rate_all(store, suite, config, old, new, prefers, stop=10**6):
    from escultor.evaluate.raters.session import RecordedChoices

    session = session_of(suite, old, new, config.evaluation.n_raters, config.evaluation.seed)
    recorded = RecordedChoices(store.log, session)
    for _ in range(stop):
        recorded.refresh()
        if (task := next_task(session, "Ada", recorded)) is None:
            break
        pick = 1 if prefers(*task.texts) else 2
        if task.check:
            pick = 1 if task.texts[0].startswith("This is a check") else 2
        store.log.append(make_choice(session, "Ada", task, pick))


def verdict_of(store, config, suite, old, new, notes):
    from escultor.cycle import gate_service

    old, new = with_preferences(store, suite, old[0], new[0], config=config, note=notes.append)
    policy = policy_of(suite.record, config)
    context = gate_service.context_of(store, old, new, policy)
    record = gate_service.decide_from_store(
        store, old, new, policy, context=context, names=("a", "b"), suite=suite
    )
    gate_service.write_record(store, record)
    return record.verdict


def test_people_decide_once_they_have_rated_every_item(sides):
    store, make = sides
    config, suite, old, new = make()
    notes = []
    assert "waits" not in verdict_of(store, config, suite, old, new, notes).because.reason
    assert "people rated 0 of 60 items" in notes[-1]
    rate_all(store, suite, config, old, new, lambda a, b: len(a) < len(b), stop=45)
    waiting = verdict_of(store, config, suite, old, new, notes)
    assert "waits for all_items_rated" in waiting.because.reason
    rate_all(store, suite, config, old, new, lambda a, b: len(a) < len(b))
    promoted = verdict_of(store, config, suite, old, new, notes)
    assert isinstance(promoted, Promote), promoted.because.reason
    assert "people_preference" in promoted.because.reason
    other = verdict_of(store, config, suite, new, old, notes)  # the sides exchanged
    assert not isinstance(other, Promote)
    a, b = with_preferences(store, suite, old[0], new[0], config=config, note=notes.append)
    both = zip(a.metrics["people_preference"], b.metrics["people_preference"], strict=True)
    assert all(x + y == 1 for x, y in both)


class Ruler:
    """A judge that likes short answers, or the first one."""

    name = "ruler"

    def __init__(self, is_blind=False):
        self.is_blind = is_blind

    def ask(self, prompts):
        replies = []
        for (message,) in prompts:
            a, b = message.content.split("[Answer A]\n")[1].split("\n\n[Answer B]\n")
            is_first = unit_of(a) < unit_of(b) if self.is_blind else len(a) < len(b)
            replies.append("[[A]]" if is_first else "[[B]]")
        return replies


def unit_of(text):
    return random.Random(text).random()


@pytest.mark.parametrize("is_blind", [False, True])
def test_a_judge_counts_as_far_as_people_agree_with_it(sides, monkeypatch, is_blind):
    from escultor.cycle import preferences

    store, make = sides
    config, suite, old, new = make({"name": "judged", "judge": "ruler"})
    notes = []
    monkeypatch.setattr(preferences, "open_judge", lambda *_: Ruler(is_blind))
    monkeypatch.setattr(preferences, "preferences_in", lambda *_: (pairs(10), []))
    with pytest.raises(DataError, match=r"agrees with people is unknown.*10 pairs"):
        with_preferences(store, suite, old[0], new[0], config=config, note=notes.append)
    monkeypatch.setattr(preferences, "preferences_in", lambda *_: (pairs(60), []))
    if is_blind:
        with pytest.raises(DataError, match="is not shown to agree with people more than by chance"):
            with_preferences(store, suite, old[0], new[0], config=config, note=notes.append)
        return
    verdict = verdict_of(store, config, suite, old, new, notes)
    assert any("agrees with people on 1.00" in note for note in notes)
    assert isinstance(verdict, Promote), verdict.because.reason


def test_what_a_judge_is_asked_is_the_pair_in_both_orders():
    (message,) = pair_prompt((Message(Role.USER, "Q"),), "x", "y", "be brief")
    assert "be brief" in message.content


# --- from the log -----------------------------------------------------------------------------


def test_only_pairs_in_the_log_make_a_skill_of_preferences(tmp_path):
    draw = random.Random(7)
    with open_store(str(tmp_path / "store")) as store:
        for n, pair in enumerate(pairs(150, seed=9)):
            ids = []
            for k, text in enumerate((pair.chosen, pair.rejected)):
                id = f"chatcmpl-{n}-{k}"
                row = draft_interaction(
                    pair.prompt, id=id, subject=f"s{n % 40}", version="v", sampling=Sampling()
                )
                row = replace(row, time=1.0 + n, answer=text, finish_reason="stop", skill="talk")
                store.log.append(row)
                ids.append(id)
            order = tuple(draw.sample(ids, 2))
            store.log.append(
                Choice(f"f{n}", 500.0 + n, f"s{n % 40}", name="pick", shown_order=order, winner=ids[0])
            )
        made = propose_skill(store, "talk", items=40, config=Config())
        assert made.declaration["metrics"][:2] == [
            "people_preference",
            {"name": "reward", "reward_model": "talk.reward.json"},
        ]
        assert made.declaration["primary"] == ["people_preference", "reward"]
        assert made.reward.auroc.low > 0.7
        assert any("AUROC 0.9" in note or "AUROC 1.0" in note for note in made.notes)
        drawn = {prompt_key((Message(Role.USER, row["input"]),)) for row in made.rows}
        assert drawn.isdisjoint(made.reward.prompts)
