"""A model behind a server: which version is asked, what its log-probs come to, and what is refused."""

import math

import pytest
from replying import server
from tiny_suites import tiny_suite

from escultor.cycle.evaluation_service import evaluate_endpoint
from escultor.errors import DataError, InputError, UpstreamFault
from escultor.evaluate.cache import EvaluationCache
from escultor.evaluate.predictions import Predictions
from escultor.evaluate.scoring import evaluate_served
from escultor.evaluate.served_model import Endpoint, ServedModel, chat_text, served_model
from escultor.skills.answer_parts import AnswerParts
from escultor.skills.suites import make_suite
from escultor.store import open_store
from escultor.types import Message, Role, Sampling, SuiteItem

MODELS = {"data": [{"id": "escultor", "root": "v2"}, {"id": "v2", "root": "v2"}, {"id": "other"}]}


def one(text="so"):
    def reply(path, body):
        if path.endswith("/chat/completions"):
            choice = {"message": {"content": f"{text} {body['messages'][-1]['content']}"}}
        else:
            choice = {"text": f"{text} {body['prompt']}"}
        return 200, {
            "choices": [{**choice, "finish_reason": "length"}],
            "usage": {"completion_tokens": 3},
        }

    return reply


def scored(tokens):
    """A reply to a prompt of these (text, logprob, likeliest), with one more token behind it."""
    columns = [*tokens, ("!", -1.0, -1.0)]
    starts = [sum(len(t) for t, *_ in columns[:n]) for n in range(len(columns))]
    found = {
        "text_offset": starts,
        "token_logprobs": [p for _, p, _ in columns],
        "top_logprobs": [None if p is None else {"x": best, text: p} for text, p, best in columns],
    }
    return 200, {"choices": [{"logprobs": found}]}


def at(url):
    return ServedModel(Endpoint(url, sleep=lambda _: None), "m", "m")


def test_a_name_is_pinned_to_the_version_it_stands_for():
    with server((200, MODELS)) as (url, _):
        found = served_model(Endpoint(url), "escultor")
        assert (found.model, found.name) == ("v2", f"v2 at {url}")
        assert served_model(Endpoint(url), "other").model == "other"
        with pytest.raises(DataError, match="serves no such model"):
            served_model(Endpoint(url), "nobody")


@pytest.mark.parametrize(
    ("pair", "tokens", "sum_of", "greedy"),
    [
        (("ab", "cd"), [("ab", None, 0), ("c", -0.5, -0.5), ("d", -2.0, -1.0)], -2.5, False),
        (("ab", "cd"), [("ab", None, 0), ("cd", -0.25, -0.25)], -0.25, True),
        (("ab", "cd"), [("a", -9.0, -1), ("bcd", -0.75, -0.75)], -0.75, True),  # it reaches over the end
        (("", "cd"), [("c", -1.0, -1.0), ("d", -1.5, -1.5)], -2.5, True),
    ],
)
def test_a_continuation_is_worth_its_own_tokens_and_what_is_generated_counts_nothing(
    pair, tokens, sum_of, greedy
):
    with server(scored(tokens)) as (url, _):
        assert at(url).likelihoods([pair]) == [(sum_of, greedy)]


@pytest.mark.parametrize(
    "reply",
    [
        scored([("cd", None, 0)]),
        (200, {"choices": [{"logprobs": None}]}),
        (200, {"choices": [{"text": "x"}]}),
    ],
)
def test_a_server_that_does_not_score_a_text_is_a_fault(reply):
    with server(reply) as (url, _), pytest.raises(UpstreamFault):
        at(url).likelihoods([("", "cd")])


def test_texts_and_answers_come_in_the_order_of_their_requests():
    with server(one()) as (url, seen):
        texts = at(url).texts(["a", "b", "c"], [Sampling(max_new_tokens=4)] * 3, [["."], [], list("abcdef")])
        said = at(url).answers([(Message(Role.USER, str(n)),) for n in range(20)], [Sampling()] * 20)
    assert texts == ["so a", "so b", "so c"]
    assert [(each.text, each.tokens, each.cut) for each in said] == [(f"so {n}", 3, True) for n in range(20)]
    chats = [body for path, _, body in seen if path == "/v1/chat/completions"]
    assert len(chats) == 20
    assert all(body["store"] is False for body in chats)
    stops = {body["prompt"]: body.get("stop") for path, _, body in seen if path == "/v1/completions"}
    assert stops == {"a": ["."], "b": None, "c": ["a", "b", "c", "d"]}


@pytest.mark.parametrize("url", ["nonsense", "ftp://127.0.0.1/v1", "http://"])
def test_an_address_that_is_none_is_refused_at_once(url):
    with pytest.raises(InputError, match="no address of a server"):
        served_model(Endpoint(url, sleep=pytest.fail), "m")


def test_a_suite_is_answered_once_and_scored_as_any(tmp_path):
    suite, path = tiny_suite(6, metrics=("exact_match", "chrf", "answer_tokens")), tmp_path / "cache.jsonl"
    with server(one()) as (url, seen):
        found = evaluate_served(at(url), suite, EvaluationCache(path))
        assert len(seen) == 6
        assert evaluate_served(at(url), suite, EvaluationCache(path)) == found
        assert len(seen) == 6
    assert found.scores.checkpoint == f"m at {url}"
    assert found.scores.metrics["answer_tokens"] == (3.0,) * 6
    assert found.scores.summary == {"cut_share": 1.0, "null_answers": 0.0}
    assert found.predictions.answers[0][0].startswith("so ")
    assert all(math.isfinite(v) for v in found.scores.metrics["chrf"])


def test_metrics_that_need_the_weights_are_refused_before_anything_is_asked():
    with server(one()) as (url, seen), pytest.raises(DataError, match="bits_per_byte, accuracy need more"):
        evaluate_served(
            at(url), tiny_suite(6, metrics=("f1", "bits_per_byte", "accuracy")), EvaluationCache(None)
        )
    assert seen == []


CALL = {"function": {"name": "f", "arguments": {"x": 1}}}


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        ({"choices": []}, None),
        ({"choices": None, "usage": []}, None),
        ({"choices": [None], "usage": {"completion_tokens": "many"}}, None),
        ({"choices": [{"message": None}]}, None),
        (
            {"choices": [{"message": {"content": None}, "finish_reason": "content_filter"}], "usage": None},
            None,
        ),
        ({"choices": [{"message": {}, "finish_reason": None}], "usage": {}}, None),
        ({"choices": [{"message": {"content": ""}}], "usage": {"completion_tokens": None}}, ""),
        ({"choices": [{"message": {"content": [{"type": "text", "text": "a"}, {"type": "x"}]}}]}, "a"),
        ({"choices": [{"message": {"content": [{"type": "output_text", "text": "b"}]}}]}, "b"),
    ],
)
def test_what_servers_send_in_the_place_of_a_text_ends_nothing(reply, text):
    with server((200, reply)) as (url, _):
        (answer,) = at(url).answers([(Message(Role.USER, "hi"),)], [Sampling()])
    assert (answer.text, answer.tokens, answer.cut) == (text, 0, False)
    assert chat_text(reply) == (text or "")


def test_arguments_of_a_call_that_are_no_text_are_written_as_json():
    as_text = {"function": {"name": "f", "arguments": '{"x": 1}'}}
    found = []
    for call in (CALL, as_text):
        with server((200, {"choices": [{"message": {"tool_calls": [call]}}]})) as (url, _):
            found += at(url).answers([(Message(Role.USER, "hi"),)], [Sampling()])
    assert found[0] == found[1]


def test_a_null_answer_scores_worst_and_is_counted_and_ends_nothing(tmp_path):
    def reply(path, body):
        said = None if "bird" in body["messages"][-1]["content"] else "dog"
        message = {"content": said} if said or "bird bird" in str(body) else {"tool_calls": []}
        return 200, {
            "choices": [{"message": message, "finish_reason": "length"}],
            "usage": {"completion_tokens": 3},
        }

    metrics = ("exact_match", "safe", "cut", "schema_valid", "answer_tokens")
    suite = tiny_suite(8, metrics=metrics)
    with server(reply) as (url, _):
        cache = EvaluationCache(tmp_path / "cache")
        scores = evaluate_served(at(url), suite, cache).scores
        assert evaluate_served(at(url), suite, EvaluationCache(tmp_path / "cache")).scores == scores
    (null,) = [n for n, item in enumerate(suite.items) if "bird" in item.prompt[0].content]
    assert scores.summary["null_answers"] == 1.0
    found = {name: values[null] for name, values in scores.metrics.items() if name != "answer_tokens"}
    assert found == {"exact_match": 0.0, "safe": 0.0, "cut": 1.0, "schema_valid": 0.0}
    assert sum(scores.metrics["exact_match"]) > 0


def test_asking_again_takes_the_place_of_what_the_cache_said(tmp_path):
    suite, said = tiny_suite(metrics=("exact_match",)), ["cat"]

    def reply(path, body):
        return one(said[0])(path, body)

    with server(reply) as (url, seen), open_store(str(tmp_path / "store")) as store:

        def ask(again=False):
            return evaluate_endpoint(at(url), suite, store, lambda text: None, again)[1].answers

        first = ask()
        said[0] = "dog"
        assert ask() == first
        renewed = ask(again=True)
        assert renewed != first
        assert ask() == renewed
        assert len(seen) == 2 * len(suite.items)


@pytest.mark.parametrize(
    ("said", "exact", "kept"),
    [
        ("I think so. Answer: 42. Stop here. Answer: 7", 1.0, ("I think so. Answer: 42. ", "42.")),
        ("Answer: 1, no: Answer: 42", 1.0, ("Answer: 1, no: Answer: 42", "42")),
        ("42", 0.0, ("42", "")),
    ],
)
def test_metrics_read_what_a_suite_extracts_before_its_stop_and_both_are_kept(said, exact, kept):
    item = SuiteItem("a", (Message(Role.USER, "q"),), "a", ("42",))
    parts = AnswerParts(("Stop", *"§¶†‡"), r"Answer: ([\d.]+)")
    suite = make_suite("s", "chat", [item], ["numeric_answer", "cut"], Sampling(), parts=parts)
    reply = {
        "choices": [{"message": {"content": said}, "finish_reason": "length"}],
        "usage": {"completion_tokens": 9},
    }
    with server((200, reply)) as (url, seen):
        done = evaluate_served(at(url), suite, EvaluationCache(None))
    assert seen[0][2]["stop"] == ["Stop", "§", "¶", "†"]
    assert done.scores.metrics == {"numeric_answer": (exact,), "cut": (float("Stop" not in said),)}
    assert (done.predictions.answers, done.predictions.extracted) == (((kept[0],),), ((kept[1],),))
    assert done.scores.summary["not_extracted"] == 1 - exact
    assert Predictions.from_bytes(done.predictions.to_bytes()) == done.predictions
