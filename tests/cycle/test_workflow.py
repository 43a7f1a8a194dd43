"""Steps of a workflow: computed once, in one transaction with what they made."""

import pytest

from escultor.cycle.workflow import Workflow
from escultor.types import Checkpoint, Step

MADE = Checkpoint("c", "sft", "sft", (), "", "", "", 0, 1)


def test_a_step_with_the_same_inputs_and_code_is_not_run_again(store):
    ran = []

    def work(key):
        ran.append(key)
        return {"n": len(ran)}, [MADE]

    first = Workflow(store).step("train", {"seed": 1}, work, code="a")
    flow = Workflow(store)
    assert flow.step("train", {"seed": 1}, work, code="a") == first == {"n": 1}
    assert [reused for _, reused in flow.steps] == [True]
    assert flow.step("train", {"seed": 2}, work, code="a") == {"n": 2}
    assert flow.step("train", {"seed": 1}, work, code="b") == {"n": 3}
    assert len(ran) == 3


def test_a_step_that_fails_leaves_nothing(store):
    def fail(key):
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        Workflow(store).step("train", {}, fail, code="a")
    assert store.log.count(Step) == 0


def test_what_a_step_made_and_the_step_are_written_together_or_not_at_all(store):
    store.log.append(MADE)
    other = Checkpoint("c", "another", "sft", (), "", "", "", 0, 1)
    with pytest.raises(Exception, match="c"):
        Workflow(store).step("train", {}, lambda key: ({}, [other]), code="a")
    assert store.log.count(Step) == 0
