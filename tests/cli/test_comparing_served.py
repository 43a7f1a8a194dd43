"""`compare` on models behind servers, and on one model under two instructions."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "evaluate"))
from replying import server

MODELS = 200, {"data": [{"id": "m", "root": "v1"}]}
ITEMS = [{"id": f"i{k}", "prompt": f"Is {k * 7919} a number?", "reference": "yes"} for k in range(80)]


def saying(good: str):
    """A server whose model says yes where its system message is `good`, and else in one of four cases."""

    def reply(path, body):
        if body is None:
            return MODELS
        said = body["messages"][0]["content"]
        is_right = said == good or sum(map(ord, body["messages"][-1]["content"])) % 4 == 0
        answer = {"message": {"content": "yes" if is_right else "no"}, "finish_reason": "stop"}
        return 200, {"choices": [answer], "usage": {"completion_tokens": 1}}

    return reply


@pytest.fixture
def suite(tmp_path):
    header = {"name": "yes", "metrics": ["exact_match"]}
    lines = [json.dumps(each) for each in (header, *ITEMS)]
    (tmp_path / "yes.jsonl").write_text("\n".join(lines))
    (tmp_path / "policy.yaml").write_text("primary: [exact_match]\nguards: {}\n")
    return ("--suite", "yes.jsonl", "--policy", "policy.yaml", "--json")


def test_two_prompts_of_one_served_model_are_compared_and_counted(cli, tmp_path, suite):
    for name in ("old", "new"):
        (tmp_path / f"{name}.txt").write_text(f"{name}\n")
    prompts = ("--champion-instruction", "old.txt", "--candidate-instruction", "new.txt")
    with server(saying("new")) as (url, seen):
        call = cli("compare", f"{url}#m", url, *prompts, *suite)
        assert (call.code, call.data["verdict"], call.data["look"]) == (0, "promote", 1), call.err
        asked = [body["messages"] for _, _, body in seen if body]
        assert {tuple(m["content"] for m in each[:-1]) for each in asked} == {("old",), ("new",)}
        count = len(seen)
        again = cli("compare", f"{url}#m", url, *prompts, *suite)
        assert (again.data["look"], len(seen) - count) == (1, 2)  # the list of models alone
        turned = cli("compare", f"{url}#m", url, prompts[0], "new.txt", prompts[2], "old.txt", *suite)
        assert (turned.code, turned.data["verdict"], turned.data["look"]) == (3, "reject", 2)
        out = (*prompts, *suite, "--verify", f"escultor-store/verdicts/{call.data['id']}/verdict.json")
        assert cli("compare", f"{url}#m", url, *out).code == 0
        (tmp_path / "new.txt").write_text("newer")
        assert cli("compare", f"{url}#m", url, *out).code == 2


def test_two_servers_are_compared(cli, suite):
    with server(saying("-")) as (old, _), server(saying(ITEMS[0]["prompt"])) as (new, _):
        call = cli("compare", old, new, *suite)
        assert (call.code, call.data["verdict"]) == (3, "hold"), call.err
        assert call.data["champion"] == f"v1 at {old}"


@pytest.mark.parametrize(
    ("sides", "said"),
    [
        (("{url}#other", "{url}"), "serves no such model"),
        (("{url}", "scores.json", "--candidate-instruction", "some.txt"), "recorded scores"),
        (("{url}", "{url}", "--champion-instruction", "empty.txt"), "no instruction"),
        (("{url}", "{url}", "--metric", "f1"), "runs of other tools"),
    ],
)
def test_sides_that_make_no_sense_are_refused(cli, tmp_path, suite, sides, said):
    scores = {"checkpoint": "c", "suite": "s", "items": ["a"], "clusters": ["a"], "metrics": {"f1": [1.0]}}
    (tmp_path / "scores.json").write_text(json.dumps(scores))
    (tmp_path / "some.txt").write_text("some")
    (tmp_path / "empty.txt").write_text(" \n")
    with server(saying("new")) as (url, _):
        call = cli("compare", *(each.format(url=url) for each in sides), *suite)
    assert (call.code, said in call.err) == (2, True), call.err
