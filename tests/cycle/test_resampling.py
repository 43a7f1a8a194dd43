"""New answers to prompts that displeased: the champion's own, ranked, and only where that is asked for."""

from dataclasses import replace

import pytest
from tiny import llama

from escultor.config import Config
from escultor.cycle import resampling
from escultor.cycle.evolution import TrainingMaterial, with_new_answers
from escultor.cycle.resampling import JudgeScorer
from escultor.cycle.steps import CycleRun
from escultor.cycle.workflow import Workflow
from escultor.evaluate.cache import EvaluationCache
from escultor.feedback.card import Advice
from escultor.model.folders import save
from escultor.skills.probes import probe_suite
from escultor.store import open_store
from escultor.types import Message, Origin, Pair, Role, UnpairedExample

ON = {"judge": "scripted", "samples": 3, "least_gap": 0.5}


class ByLength:
    """A longer answer is a better one."""

    name = "length/1"

    def __init__(self):
        self.asked = 0

    def score(self, prompt, answers):
        self.asked += 1
        return [float(len(answer)) for answer in answers]


def verdict(prompt: str, up: bool) -> UnpairedExample:
    said = (Message(Role.USER, prompt),)
    return UnpairedExample(
        f"j-{prompt}", said, "old answer", up, Origin((f"i-{prompt}", f"t-{prompt}"), "thumb/1")
    )


def material(verdicts: list[UnpairedExample]) -> TrainingMaterial:
    none = {"rows": 0, "rules": {}}
    kinds = {"example": none, "pair": none, "unpaired": none | {"rows": len(verdicts)}}
    card = {"kinds": kinds, "agreement_alpha": None, "answers_judged_by_several": 0, "counts": {}}
    return TrainingMaterial({"example": [], "pair": [], "unpaired": list(verdicts)}, {}, card, Advice((), ()))


@pytest.fixture
def cycle(tmp_path):
    with open_store(str(tmp_path / "store")) as store:
        data = {"feedback": {"resampling": ON, "min_pairs": 2}, "serve": {"max_new_tokens": 6}}
        config = Config.model_validate(data)
        yield CycleRun(Workflow(store), config, probe_suite("safety"))


@pytest.fixture
def champion(cycle, tmp_path):
    save(llama(), tmp_path / "model")
    return cycle.store.blobs.put_tree(tmp_path / "model")


def test_the_longest_new_answer_stands_over_the_shortest(cycle, champion, monkeypatch):
    """A tiny model hardly ever ends a turn by itself: what it says up to its limit is taken here."""
    monkeypatch.setattr(resampling, "WHOLE", ("stop", "length"))
    scorer = ByLength()
    given = material([verdict("cat", False), verdict("dog", False), verdict("bird", True)])
    found = with_new_answers(cycle, champion, given, scorer)
    assert scorer.asked == 2  # what pleased is not answered anew
    assert {pair.prompt[0].content for pair in found.pairs} <= {"cat", "dog"}
    assert found.pairs
    for pair in found.pairs:
        assert isinstance(pair, Pair)
        assert len(pair.chosen) > len(pair.rejected)
        assert pair.origin.rule == "resampled/1;length/1"
        assert pair.flip_rate == 0.2
        assert f"i-{pair.prompt[0].content}" in pair.origin.parents
    assert found.card["kinds"]["pair"]["rules"] == {"resampled/1": len(found.pairs)}
    assert found.items["unpaired"] == given.items["unpaired"]
    again = with_new_answers(cycle, champion, given, scorer)
    assert again == found
    assert scorer.asked == 2  # drawn and ranked once


def test_nothing_is_drawn_unless_it_is_asked_for_or_where_nothing_displeased(cycle, champion):
    given = material([verdict("cat", False)])
    off = cycle.config.feedback.model_copy(update={"resampling": None})
    silent = replace(cycle, config=cycle.config.model_copy(update={"feedback": off}))
    assert with_new_answers(silent, champion, given) is given
    pleased = material([verdict("cat", True)])
    assert with_new_answers(cycle, champion, pleased) is pleased


def test_answers_cut_off_and_held_out_prompts_make_no_pair(cycle, champion):
    asked = cycle.suite.items[0].prompt
    held = replace(verdict("x", False), prompt=asked)
    found = with_new_answers(cycle, champion, material([held, verdict("cat", False)]), ByLength())
    assert found.pairs == []
    assert found.counts["left out: held-out prompt"] == 1
    assert found.counts["new answers that are empty or cut off"] > 0


def test_a_judge_of_pairs_ranks_by_its_mean_verdict_in_both_orders():
    class Longest:
        name = "scripted"

        def ask(self, prompts):
            replies = []
            for (message,) in prompts:
                a, b = message.content.split("[Answer A]\n")[1].split("\n\n[Answer B]\n")
                replies.append("[[A]]" if len(a) > len(b) else "[[B]]" if len(b) > len(a) else "no idea")
            return replies

    scorer = JudgeScorer(Longest(), EvaluationCache(None), lambda text: None)
    prompt = (Message(Role.USER, "p"),)
    assert scorer.score(prompt, ["aa", "a", "aaa", "bb"]) == pytest.approx([0.0, -1.0, 1.0, 0.0])
    assert scorer.score(prompt, ["one"]) == [0.0]
