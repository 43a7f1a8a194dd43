"""Rows that join and leave decode as they would alone: transformers' `generate`, one prompt at a time, is
the oracle, token by token."""

import math

import pytest
import torch
from tiny import llama

from escultor.model import decoding
from escultor.model.decoding import CachedBackend, Decoding, DecodingRow, RecomputingBackend, choose_backend
from escultor.types import Sampling

VOCABULARY = 120
SMALL = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2}
LLAMA_LIKE = SMALL | {"intermediate_size": 48, "num_key_value_heads": 2, "max_position_embeddings": 128}
NO_STOP: frozenset[int] = frozenset()


def model(family: str, **changes):
    import transformers

    configs = {
        "Llama": LLAMA_LIKE,
        "Qwen2": LLAMA_LIKE,
        "Qwen3": LLAMA_LIKE | {"head_dim": 8},
        "GPT2": {"vocab_size": VOCABULARY, "n_embd": 32, "n_head": 4, "n_layer": 2, "n_positions": 128},
        "Mistral": LLAMA_LIKE | {"sliding_window": 6},
        "Gemma2": LLAMA_LIKE | {"head_dim": 8, "sliding_window": 6},
        "Mamba": {"vocab_size": VOCABULARY, "hidden_size": 16, "num_hidden_layers": 2, "state_size": 4},
    }
    torch.manual_seed(1)
    config = getattr(transformers, f"{family}Config")(**configs[family] | changes)
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(config, name, None)
    kind = {"GPT2": "GPT2LMHeadModel"}.get(family, f"{family}ForCausalLM")
    made = getattr(transformers, kind)(config).eval()
    with torch.no_grad():  # logits far apart, so that no rounding decides
        for weight in made.parameters():
            weight.mul_(3) if weight.ndim > 1 else None
    return made


def prompts(count=5, seed=0):
    random = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 24, (count,), generator=random).tolist()
    return [torch.randint(0, VOCABULARY, (n,), generator=random).tolist() for n in lengths]


def greedy(prompt, room, **more):
    return DecodingRow(prompt, Sampling(), NO_STOP, room, **more)


def theirs(one, prompt, room):
    out = one.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        max_new_tokens=room,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )
    return out[0, len(prompt) :].tolist()


def all_tokens(decoding_, rows, joins=(0,)):
    """The tokens of `rows`, of which those up to `joins[i]` have joined by step i."""
    tokens = {row: [] for row in rows}
    waiting, step = list(rows), 0
    while waiting or decoding_.rows:
        until = joins[step] if step < len(joins) else len(rows)
        joining = waiting[: max(0, until - (len(rows) - len(waiting)))]
        drawn = decoding_.join(joining) if joining else []
        waiting = waiting[len(joining) :]
        drawn += decoding_.step() if decoding_.rows else []
        for row, token in drawn:
            tokens[row].append(token.id)
        step += 1
    return [tokens[row] for row in rows]


@pytest.mark.parametrize("family", ["Llama", "Qwen2", "Qwen3", "GPT2", "Mistral", "Gemma2", "Mamba"])
@pytest.mark.filterwarnings("ignore:The fast path is not available")
def test_greedy_tokens_are_those_of_transformers_generate(family):
    one = model(family)
    asked = prompts()
    rooms = [9, 2, 30, 5, 14]
    found = all_tokens(Decoding(one), [greedy(p, n) for p, n in zip(asked, rooms, strict=True)], (1, 1, 3, 4))
    assert found == [theirs(one, p, n) for p, n in zip(asked, rooms, strict=True)]


def test_what_a_model_remembers_decides_how_it_is_decoded():
    kinds = {family: type(choose_backend(model(family))) for family in ("Llama", "Mistral", "Mamba")}
    assert kinds == {"Llama": CachedBackend, "Mistral": CachedBackend, "Mamba": RecomputingBackend}


def test_rows_that_are_never_cached_have_the_same_tokens(monkeypatch):
    one, asked = model("Qwen2"), prompts()
    cached = all_tokens(Decoding(one), [greedy(p, 7) for p in asked], (2, 3))
    monkeypatch.setattr(decoding, "layers_to_cache", lambda _: None)
    assert all_tokens(Decoding(one), [greedy(p, 7) for p in asked], (2, 3)) == cached


def test_prompts_computed_chunk_by_chunk_have_the_same_tokens(monkeypatch):
    one, asked = model("Mistral"), prompts(6)
    whole = all_tokens(Decoding(one), [greedy(p, 6) for p in asked])
    monkeypatch.setattr(decoding, "CHUNK", 4)
    monkeypatch.setattr(decoding, "PREFILL_TOKENS", 30)
    assert all_tokens(Decoding(one), [greedy(p, 6) for p in asked]) == whole


@pytest.mark.parametrize("family", ["Llama", "GPT2", "Gemma2", "Mamba"])
@pytest.mark.parametrize("most", [1, 5])
@pytest.mark.filterwarnings("ignore:The fast path is not available")
def test_prompts_that_join_piece_by_piece_while_steps_are_taken_have_the_same_tokens(family, most):
    one, (early, *asked) = model(family), prompts(5, seed=4)
    batch, first = Decoding(one), greedy(early, 60)
    rows = [greedy(p, n) for p, n in zip(asked, (0, 6, 9, 3), strict=True)]
    tokens = {row: [token.id] for row, token in batch.join([first])} | {row: [] for row in rows}
    waited, came = 0, []
    for joined in batch.prefill(rows, lambda: most * len(rows)):
        if joined is None:
            assert batch.rows[0] is first  # what is under way is not there yet
            waited += 1
        else:
            came += joined.rows
            for row, token in joined.drawn:
                tokens[row].append(token.id)
        for row, token in batch.step():
            tokens[row].append(token.id)
    while batch.rows:
        for row, token in batch.step():
            tokens[row].append(token.id)
    assert (waited > 0) == (family != "Mamba")
    assert sorted(map(id, came)) == sorted(map(id, rows))
    assert tokens.pop(first) == theirs(one, early, 60)
    assert [tokens[row] for row in rows] == [
        theirs(one, r.prompt, r.max_tokens) if r.max_tokens else [] for r in rows
    ]


def test_a_prompt_is_worth_the_same_whatever_pieces_it_is_computed_in():
    one, prompt = model("Llama"), prompts(1, seed=5)[0]
    scored = []
    for most in (1, 4, 100):
        row = DecodingRow(prompt, Sampling(), NO_STOP, 3, top_logprobs=2, score_prompt=True)
        batch = Decoding(one)
        for _ in batch.prefill([row], lambda most=most: most):
            pass
        scored.append(row.scores)
    assert len(scored[0]) == len(prompt)
    for other in scored[1:]:
        assert [t.id for t in other] == [t.id for t in scored[0]]
        ours, theirs_ = ([t.logprob for t in s[1:]] for s in (scored[0], other))
        assert ours == pytest.approx(theirs_, abs=1e-4)


def test_many_rows_come_and_go_and_each_has_its_own_tokens():
    one = model("Llama")
    asked = prompts(24, seed=3)
    rooms = [1 + (7 * i) % 17 for i in range(22)] + [70, 70]
    rows = [greedy(p, n) for p, n in zip(asked, rooms, strict=True)]
    found = all_tokens(Decoding(one), rows, tuple(range(0, 24, 2)))
    assert found == [theirs(one, p, n) for p, n in zip(asked, rooms, strict=True)]
    assert {row.finish for row in rows} == {"length"}


@pytest.mark.parametrize("family", ["Llama", "GPT2"])
def test_equal_prompts_are_computed_once_and_each_row_goes_its_own_way(family, monkeypatch):
    one = model(family)
    first, second, third = prompts(3, seed=8)
    asked = [second, first, first, third, first, second]
    rows = [DecodingRow(p, Sampling(1.0, 1.0, 9, seed), NO_STOP, 9) for seed, p in enumerate(asked)]
    alone = [
        all_tokens(Decoding(one), [DecodingRow(row.prompt, row.sampling, NO_STOP, 9)])[0] for row in rows
    ]
    seen, forward = [], decoding._Forward.__call__

    def counted(own, ids, *more):
        seen.append(len(ids))
        return forward(own, ids, *more)

    monkeypatch.setattr(decoding._Forward, "__call__", counted)
    assert all_tokens(Decoding(one), rows, (2, 6)) == alone
    assert seen[:3] == [2, 2, 3]  # second and first; their step; third, first and second for four rows
    assert len({tuple(tokens) for tokens in alone}) > 3


def test_a_dropped_row_leaves_the_others_as_they_were():
    one, asked = model("Llama"), prompts()
    batch = Decoding(one)
    rows = [greedy(p, 8) for p in asked]
    tokens = {row: [token.id] for row, token in batch.join(rows)}
    batch.drop(rows[1])
    while batch.rows:
        for row, token in batch.step():
            tokens[row].append(token.id)
    for row in (rows[0], *rows[2:]):
        assert tokens[row] == theirs(one, row.prompt, 8)


def test_a_stop_token_ends_a_row_and_is_its_last():
    one, prompt = model("Llama"), prompts(1)[0]
    expected = theirs(one, prompt, 12)
    row = DecodingRow(prompt, Sampling(), frozenset((expected[5],)), 12)
    (found,) = all_tokens(Decoding(one), [row])
    assert found == expected[: expected.index(expected[5]) + 1]
    assert row.finish == "stop"


def test_draws_depend_on_the_rows_own_seed_and_prompt_alone():
    one, asked = model("Llama"), prompts(8, seed=5)
    hot = [Sampling(1.0, 1.0 if i % 2 else 0.7, 10, seed=i) for i in range(8)]
    make = lambda i: DecodingRow(asked[i], hot[i], NO_STOP, 10)  # noqa: E731
    alone = [all_tokens(Decoding(one), [make(i)])[0] for i in range(8)]
    order = [3, 0, 7, 5, 1, 6, 2, 4]
    together = all_tokens(Decoding(one), [make(i) for i in order], (2, 2, 3, 7))
    assert together == [alone[i] for i in order]
    other_seed = DecodingRow(asked[0], Sampling(1.0, 0.7, 10, seed=99), NO_STOP, 10)
    assert all_tokens(Decoding(one), [other_seed])[0] != alone[0]


@torch.no_grad()
def test_logprobs_are_those_of_one_pass_over_prompt_and_answer():
    one, asked = model("Llama"), prompts(4, seed=2)
    rows = [greedy(p, 6, top_logprobs=(None, 0, 2, 3)[i], score_prompt=i != 1) for i, p in enumerate(asked)]
    batch = Decoding(one)
    drawn = batch.join(rows)
    while batch.rows:
        drawn += batch.step()
    for row in rows:
        answer = [token for other, token in drawn if other is row]
        ids = [*row.prompt, *(token.id for token in answer)]
        logp = one(torch.tensor([ids])).logits[0].log_softmax(-1)
        scored = [*row.scores[1:], *answer] if row.scores else answer
        for at, token in enumerate(scored, len(ids) - len(scored)):
            if token.logprob is None:
                assert row.top_logprobs is None
                continue
            assert token.logprob == pytest.approx(float(logp[at - 1, ids[at]]), abs=1e-4)
            best = logp[at - 1].topk(row.top_logprobs or 0)
            assert [id for id, _ in token.top] == best.indices.tolist()
            assert [value for _, value in token.top] == pytest.approx(best.values.tolist(), abs=1e-4)
    assert [len(row.scores) for row in rows] == [len(asked[0]), 0, len(asked[2]), len(asked[3])]
    assert rows[0].scores[0].logprob is None


def test_a_row_with_no_room_is_scored_and_says_nothing():
    one, asked = model("Llama"), prompts(2)
    rows = [greedy(asked[0], 0, score_prompt=True), greedy(asked[1], 3)]
    batch = Decoding(one)
    drawn = batch.join(rows)
    assert [row for row, _ in drawn] == [rows[1]]
    assert rows[0].finish == "length"
    assert len(rows[0].scores) == len(asked[0])
    assert batch.rows == [rows[1]]


class Only:
    """A guide that lets certain tokens through, in order."""

    def __init__(self, *allowed):
        self.left = list(allowed)

    def allowed(self):
        seen = torch.zeros(VOCABULARY, dtype=torch.bool)
        seen[self.left[0]] = True
        return seen

    def advance(self, token):
        assert token == self.left.pop(0)
        return not self.left


def test_a_guided_row_says_what_its_guide_allows_and_its_neighbours_what_they_would():
    one, asked = model("Llama"), prompts(3)
    rows = [greedy(asked[0], 5), greedy(asked[1], 9, guide=Only(5, 6, 7)), greedy(asked[2], 5)]
    found = all_tokens(Decoding(one), rows)
    assert found == [theirs(one, asked[0], 5), [5, 6, 7], theirs(one, asked[2], 5)]
    assert rows[1].finish == "stop"


def test_a_rows_seconds_add_up_to_those_that_were_spent(monkeypatch):
    now = iter(range(1000))
    monkeypatch.setattr(decoding.time, "perf_counter", lambda: next(now))
    rows = [greedy([1, 2, 3], 3), greedy([4], 2)]
    all_tokens(Decoding(llama().model), rows)
    assert [row.compute_s for row in rows] == [0.75 + 0.5 + 1.0, 0.25 + 0.5]
    assert math.isclose(sum(row.compute_s for row in rows), 3.0)
