"""Our objectives against TRL's own trainers, run live: one batch, the same model, the same token ids.

Runs where TRL is installed (`make oracle-test`), and is left out elsewhere.
"""

import copy
import itertools
from collections import Counter

import pytest
import torch
from tiny import ORIGIN, WORDS, example, llama

from escultor.config import Dpo, Kto, Sft
from escultor.text.chat import ChatTemplate
from escultor.train.methods import METHODS, Frozen
from escultor.types import Pair, UnpairedExample

pytest.importorskip("trl")
from trl_side import Said, judged_loss, nll_loss, pair_loss

# TRL calls what transformers has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:.*is deprecated and will be removed in v6:FutureWarning")

BETA, FLIPPED = 0.3, 0.1
LENGTHS = {"length_normalised": True}
# Our settings, then TRL's losses and knobs: one row for each objective that both have over a batch.
PREFERENCES = {
    "sigmoid": ({"loss": "sigmoid"}, ("sigmoid",), {}),
    "robust": ({"loss": "robust", "flip_rate": FLIPPED}, ("robust",), {"label_smoothing": FLIPPED}),
    "hinge": ({"loss": "hinge"}, ("hinge",), {}),
    "ipo, which TRL normalises": ({"loss": "ipo", **LENGTHS}, ("ipo",), {}),
    "length-normalised sigmoid": ({"loss": "sigmoid", **LENGTHS}, ("sigmoid_norm",), {}),
}
# Pair by pair. TRL's nll is a mean over all chosen tokens of a batch, the paper's (and ours) one of the
# answers' means; its cDPO is there in AOT alone, which sorts margins over a batch.
PAIR_BY_PAIR = {
    "nll term": (
        {"loss": "sigmoid", "nll_weight": 0.4},
        ("sigmoid", "sft"),
        {"loss_weights": [1.0, 0.4]},
    ),
    "cdpo": ({"loss": "cdpo", "flip_rate": FLIPPED}, ("aot",), {"label_smoothing": FLIPPED}),
}


def sentence(seed: int, length: int) -> str:
    return " ".join(itertools.islice(itertools.cycle(WORDS[seed:] + WORDS[:seed]), length))


def pairs(settings: Dpo):
    """Five pairs through the real template, prompts and sides of ragged lengths."""
    items = [
        Pair(
            f"pair{i}",
            example(i, sentence(i, 2 + i), "").prompt,
            sentence(i + 3, 1 + 2 * i),
            sentence(i + 7, 9 - i),
            ORIGIN,
        )
        for i in range(5)
    ]
    return rows_of("dpo", items, settings)


def rows_of(phase: str, items, settings):
    return METHODS[phase].rows(items, ChatTemplate(llama().tokenizer), 256, Counter(), settings)


@pytest.fixture
def model():
    return llama(0).model


@pytest.fixture
def reference():
    """Other weights than the model's, so that no margin is zero."""
    return llama(1).model


def ours(phase: str, model, rows, settings, reference=None) -> Said:
    """The phase's own stream and objective on one batch, divided as the loop divides it."""
    method, own = METHODS[phase], copy.deepcopy(model).train()
    stream = method.stream(rows, Frozen(reference, None, Counter()), settings)
    (batch,) = stream.micro_batches(0)
    objective = method.objective(settings)
    before = 0.0
    if objective.pre_pass is not None:
        with torch.no_grad():
            survey = objective.pre_pass(own, batch)
        before = survey.total.item() / survey.weight
    loss = objective.loss(own, batch, before)
    (loss.total / loss.weight).backward()
    return Said(loss.total.item() / loss.weight, {name: p.grad for name, p in own.named_parameters()})


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
    changes, losses, knobs = PREFERENCES[name]
    settings = dpo_settings(5, **changes)
    rows = pairs(settings)
    theirs = pair_loss(model, reference, rows, losses, beta=BETA, **knobs)
    assert_same(ours("dpo", model, rows, settings, reference), theirs)


@pytest.mark.parametrize("pair", range(5))
@pytest.mark.parametrize("name", PAIR_BY_PAIR)
def test_preferences_are_trls_pair_by_pair(name, pair, model, reference):
    changes, losses, knobs = PAIR_BY_PAIR[name]
    settings = dpo_settings(1, **changes)
    rows = pairs(settings)[pair : pair + 1]
    theirs = pair_loss(model, reference, rows, losses, beta=BETA, **knobs)
    assert_same(ours("dpo", model, rows, settings, reference), theirs)


@pytest.mark.parametrize("swapped", [False, True], ids=["divergence below 0", "divergence above 0"])
@pytest.mark.parametrize("weights", [(1.0, 1.0), (1.5, 0.7)])
def test_kto_is_trls(weights, swapped, model, reference):
    good, bad = weights
    settings = Kto(
        batch_size=5,
        shuffle=False,
        dtype="float32",
        beta=BETA,
        desirable_weight=good,
        undesirable_weight=bad,
    )
    prompts = [example(i, sentence(i, 2 + i), "").prompt for i in range(5)]
    items = [
        UnpairedExample(f"judged{i}", prompt, sentence(i + 3, 9 - i), i % 2 > 0, ORIGIN)
        for i, prompt in enumerate(prompts)
    ]
    rows = rows_of("kto", items, settings)
    if swapped:
        model, reference = reference, model
    judged = [(row.prompt, row.response, row.desirable) for row in rows]
    theirs = judged_loss(model, reference, judged, beta=BETA, desirable_weight=good, undesirable_weight=bad)
    assert_same(ours("kto", model, rows, settings, reference), theirs)


def test_sft_is_trls_on_completions_alone(model):
    items = [example(i, sentence(i, 3 + i), sentence(i + 5, 8 - i)) for i in range(5)]
    settings = Sft(batch_size=5, shuffle=False, dtype="float32")
    rows = rows_of("sft", items, settings)
    assert_same(ours("sft", model, rows, settings), nll_loss(model, rows))


def test_a_wrong_loss_would_be_seen(model, reference):
    settings = dpo_settings(5, loss="sigmoid")
    theirs = pair_loss(model, reference, pairs(settings), ("hinge",), beta=BETA)
    with pytest.raises(AssertionError):
        assert_same(ours("dpo", model, pairs(settings), settings, reference), theirs)
