"""Our objectives against TRL's own trainers, run live: one batch, the same model, the same token ids.

Runs where TRL is installed (`make oracle-test`), and is left out elsewhere.
"""

import copy
import itertools
from collections import Counter

import pytest
import torch
from tiny import ORIGIN, WORDS, example, llama

from escultor.config import Dpo, Sft
from escultor.data.rows import example_rows, pair_rows
from escultor.text.chat import Chat
from escultor.train.phases import PHASES
from escultor.types import Pair

pytest.importorskip("trl")
from trl_side import Said, nll_loss, pair_loss

# TRL calls what transformers has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:.*is deprecated and will be removed in v6:FutureWarning")

BETA, FLIPPED = 0.3, 0.1
# TRL's loss and knobs, then our settings: one row for each objective that both have.
PREFERENCES = {
    "sigmoid": (("sigmoid",), {}, {}, 0.0),
    "robust": (("robust",), {"label_smoothing": FLIPPED}, {}, FLIPPED),
}


def sentence(seed: int, length: int) -> str:
    return " ".join(itertools.islice(itertools.cycle(WORDS[seed:] + WORDS[:seed]), length))


def pairs(flip_rate: float = 0.0):
    """Five pairs through the real template, prompts and sides of ragged lengths."""
    items = [
        Pair(
            f"pair{i}",
            example(i, sentence(i, 2 + i), "").prompt,
            sentence(i + 3, 1 + 2 * i),
            sentence(i + 7, 9 - i),
            ORIGIN,
            flip_rate=flip_rate,
        )
        for i in range(5)
    ]
    return pair_rows(items, Chat(llama().tokenizer), 256, Counter())


@pytest.fixture
def model():
    return llama(0).model


@pytest.fixture
def reference():
    """Other weights than the model's, so that no margin is zero."""
    return llama(1).model


def ours(phase: str, model, rows, settings, frozen=None) -> Said:
    """The phase's own stream and objective on one batch, divided as the loop divides it."""
    method = PHASES[phase]
    own = copy.deepcopy(model).train()
    stream = method.prepare(rows, frozen or own, settings)
    loss = [method.objective(settings)(own, batch) for batch in stream.micro_batches(0)]
    total = sum(part.total for part in loss) / sum(part.weight for part in loss)
    total.backward()
    return Said(total.item(), {name: p.grad for name, p in own.named_parameters()})


def dpo_settings(count: int, **changes) -> Dpo:
    return Dpo(batch_size=count, shuffle=False, dtype="float32", beta=BETA, **changes)


def assert_same(ours: Said, theirs: Said) -> None:
    """Loss and every parameter's gradient to 1e-5, of a gradient's largest entry where it is small."""
    assert ours.loss == pytest.approx(theirs.loss, rel=1e-5)
    assert ours.gradients.keys() == theirs.gradients.keys()
    for name, expected in theirs.gradients.items():
        largest = expected.abs().max().item()
        assert largest > 0
        torch.testing.assert_close(ours.gradients[name], expected, rtol=1e-5, atol=1e-5 * largest, msg=name)


@pytest.mark.parametrize("name", PREFERENCES)
def test_preferences_are_trls(name, model, reference):
    losses, knobs, changes, flip_rate = PREFERENCES[name]
    rows = pairs(flip_rate)
    theirs = pair_loss(model, reference, rows, losses, beta=BETA, **knobs)
    assert_same(ours("dpo", model, rows, dpo_settings(len(rows), **changes), reference), theirs)


@pytest.mark.parametrize("pair", range(5))
def test_the_nll_term_is_trls_sft_term_pair_by_pair(pair, model, reference):
    # Over a batch TRL takes the mean over all chosen tokens, the paper (and we) that of the answers' means.
    rows = pairs()[pair : pair + 1]
    theirs = pair_loss(model, reference, rows, ("sigmoid", "sft"), beta=BETA, loss_weights=[1.0, 0.4])
    assert_same(ours("dpo", model, rows, dpo_settings(1, nll_weight=0.4), reference), theirs)


def test_sft_is_trls_on_completions_alone(model):
    items = [example(i, sentence(i, 3 + i), sentence(i + 5, 8 - i)) for i in range(5)]
    rows = example_rows(items, Chat(llama().tokenizer), 256, Counter())
    settings = Sft(batch_size=len(rows), shuffle=False, dtype="float32")
    assert_same(ours("sft", model, rows, settings), nll_loss(model, rows))


def test_a_wrong_loss_would_be_seen(model, reference):
    theirs = pair_loss(model, reference, pairs(), ("hinge",), beta=BETA)
    with pytest.raises(AssertionError):
        assert_same(ours("dpo", model, pairs(), dpo_settings(5), reference), theirs)
