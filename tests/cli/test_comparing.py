"""`compare` on files of scores, its replay, and `canary`: what they print, write and refuse."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from cli_rows import SMALL, jsonl

from escultor.config import load_config
from escultor.cycle import gate_service
from escultor.evaluate.gate import decision, effects
from escultor.evaluate.scores import read_scores
from escultor.ids import new_id, plain
from escultor.store import open_store, registry
from escultor.types import Deployment, Interaction, Message, Rating, Role, Sampling, Scores, Usage, Verdict


def scored(path, name, gain=0.0, **changes):
    names = [f"i{k}" for k in range(80)]
    values = {"quality": [0.4 + (k % 9) / 50 + gain * (1 + k % 2) for k in range(80)], "valid": [1.0] * 80}
    made = {"checkpoint": name, "suite": "s", "items": names, "clusters": names}
    path.write_text(json.dumps({**made, "metrics": values, **changes}))
    return str(path)


@pytest.fixture
def sides(tmp_path):
    return scored(tmp_path / "old.json", "old"), scored(tmp_path / "new.json", "new", 0.1)


@pytest.fixture
def policy(tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text("name: mine\nguards: {valid: 0.1}\n")
    return path


def test_a_verdict_is_a_file_and_a_page_that_replay_byte_for_byte(cli, tmp_path, sides, policy):
    call = cli("compare", *sides, "--policy", policy, "--out", "out", "--json")
    assert (call.code, call.data["verdict"]) == (0, "promote"), call.err
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"verdict.json", "verdict.html", "verdict.md"}
    assert json.loads((tmp_path / "out" / "verdict.json").read_text())["policy"]["name"] == "mine"
    again = cli("compare", "--replay", "out/verdict.json", "--out", "again", "--json")
    assert (again.code, again.data["identical"]) == (0, True)
    for name in ("verdict.json", "verdict.html", "verdict.md"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()


def test_a_file_that_was_changed_does_not_replay(cli, tmp_path, sides, policy):
    cli("compare", *sides, "--policy", policy, "--out", "out")
    file = tmp_path / "out" / "verdict.json"
    file.write_text(file.read_text().replace('"verdict": "promote"', '"verdict": "hold"'))
    call = cli("compare", "--replay", file)
    assert call.code == 2
    assert "not what its inputs give" in call.err


def test_analyses_are_counted_over_the_store(cli, tmp_path, sides, policy):
    other = scored(tmp_path / "third.json", "third", 0.11)
    analyses = [
        cli("compare", *pair, "--policy", policy, "--json").data["look"]
        for pair in (sides, sides, (sides[0], other))
    ]
    assert analyses == [1, 1, 2]


def test_a_model_under_another_name_or_with_new_answers_is_not_analysed_anew(cli, tmp_path, sides, policy):
    looks = [cli("compare", *sides, "--policy", policy, "--json").data["look"]]
    renamed = scored(tmp_path / "a.json", "another"), scored(tmp_path / "b.json", "name", 0.1)
    looks += [cli("compare", *renamed, "--policy", policy, "--json").data["look"]]
    for k in range(3):
        drawn = scored(tmp_path / "b.json", f"new{k}", 0.1 + k / 1000 + 0.001)
        looks += [cli("compare", renamed[0], drawn, "--policy", policy, "--json").data["look"]]
    assert looks == [1, 1, 2, 3, 4]


def test_a_file_of_scores_is_believed_only_as_it_was_written(cli, tmp_path, sides, policy):
    """An id is the hash of everything else; without one the file is somebody's own."""
    file = tmp_path / "sealed.json"
    sealed = plain(read_scores(tmp_path / "new.json")[0])
    file.write_text(json.dumps(sealed))
    assert cli("compare", sides[0], file, "--policy", policy).code == 0
    values = sealed["metrics"]["quality"]
    for change in (
        {"metrics": sealed["metrics"] | {"quality": [1.0, *values[1:]]}},
        {"checkpoint": "other"},
        {"clusters": ["one"] * 80},
        {"scales": {"quality": {"better": "lower"}}},
        {"summary": {"parameters": 1.0}},
        {"slices": {"half": ["a"] * 80}},
        {"id": "s-new"},
    ):
        file.write_text(json.dumps(sealed | change))
        call = cli("compare", sides[0], file)
        assert (call.code, "changed after it was written" in call.err) == (2, True), change
    for change in (
        {"metrics": {"quality": [True] * 80}},
        {"metrics": {"quality": ["1.0"] * 80}},
        {"metrics": {"quality": [float("nan")] * 80}},
        {"items": list(range(80))},
        {"more": 1},
    ):
        file.write_text(json.dumps(sealed | change))
        call = cli("compare", sides[0], file)
        assert (call.code, "holds no scores" in call.err) == (2, True), change


def test_recorded_scores_of_an_older_version_are_read_from_their_file(cli, tmp_path, sides, policy):
    old = replace(read_scores(tmp_path / "new.json")[0], id="the key of a step")
    file = tmp_path / "old-new.json"
    file.write_text(json.dumps(plain(old)))
    assert cli("compare", sides[0], file, "--policy", policy).code == 2
    with open_store("escultor-store") as store:
        store.log.append(old)
    assert cli("compare", sides[0], file, "--policy", policy).code == 0


def test_another_seed_is_no_second_chance(cli, sides, policy):
    one, other = (
        cli("compare", *sides, "--policy", policy, "--set", f"evaluation.seed={seed}", "--json").data
        for seed in (1, 2)
    )
    assert one == other


def test_a_suite_under_another_name_or_extended_is_analysed_again_not_anew(cli, tmp_path, model, other_model):
    (tmp_path / "p.yaml").write_text("primary: [exact_match]\nguards: {}\nmin_items: 2\n")
    analyses = []
    for name, count, metrics in (
        ("pets", 6, ["exact_match"]),
        ("beasts", 6, ["exact_match"]),
        ("pets", 6, ["exact_match", "f1"]),
        ("pets", 9, ["exact_match"]),
    ):
        head = {"name": name, "metrics": metrics, "decoding": {"max_new_tokens": 2}}
        rows = ({"id": f"{name}{n}", "prompt": f"cat {n}", "reference": "dog"} for n in range(count))
        suite = jsonl(tmp_path / "suite.jsonl", head, *rows)
        call = cli("compare", model, other_model, "--suite", suite, "--policy", "p.yaml", *SMALL, "--json")
        assert call.code == 3, call.err
        analyses.append(call.data["look"])
    assert analyses == [1, 2, 3, 4]
    fresh = ({"id": f"n{n}", "prompt": f"bird {n}", "reference": "dog"} for n in range(6))
    suite = jsonl(tmp_path / "suite.jsonl", {"name": "new", "metrics": ["exact_match"]}, *fresh)
    call = cli("compare", model, other_model, "--suite", suite, "--policy", "p.yaml", *SMALL, "--json")
    assert call.data["look"] == 1


def test_comparisons_at_once_are_not_both_the_first_analysis(tmp_path):
    names = ("base", *(f"new{n}" for n in range(4)))
    sides = {name: scored(tmp_path / f"{name}.json", name, n / 50) for n, name in enumerate(names)}
    policy = load_config(None, ()).gate.model_copy(update={"guards": {}})
    base, *others = (read_scores(tmp_path / f"{name}.json")[0] for name in sides)

    def ask(other):
        with open_store(str(tmp_path / "store")) as store, gate_service.exclusive(store):
            context = gate_service.context_of(store, base, other, policy)
            record = gate_service.decide_from_store(store, base, other, policy, context, ("a", "b"))
            store.log.append(record.verdict)
            return context.look

    open_store(str(tmp_path / "store")).close()
    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(ask, others)) == [1, 2, 3, 4]


def test_cards_signatures_and_void_items_are_given_as_options(cli, tmp_path, sides, monkeypatch):
    rules, card, void = (tmp_path / name for name in ("p.yaml", "card.json", "void.txt"))
    rules.write_text("gate: {guards: {}, card: {labels.largest: 0.6}, sign_off: true}\n")
    card.write_text('{"labels": {"largest": 0.4}}')
    void.write_text("i3 erased on request\n")
    ask = ("compare", *sides, "--policy", rules)
    assert "waits for" in cli(*ask).out
    sign = (*ask, "--card", card, "--signed-by", "Ana")
    assert "ESCULTOR_APPROVAL_KEY is not set" in cli(*sign).err
    made = {name: cli("keys", "create", name, "--scope", scope, "--json").data for name, scope in
            (("Ana", "approve"), ("Bo", "approve"), ("Cy", "infer"))}  # fmt: skip
    for name, error in (("Bo", "another person's"), ("Cy", "may not approve")):
        monkeypatch.setenv("ESCULTOR_APPROVAL_KEY", made[name]["key"])
        assert error in cli(*sign).err
    monkeypatch.setenv("ESCULTOR_APPROVAL_KEY", made["Ana"]["key"])
    call = cli(*sign, "--json")
    assert call.code == 0
    assert call.data["vetoes"][-1]["limit"] == f"Ana (key {made['Ana']['id']})"
    cli("keys", "revoke", made["Ana"]["id"])
    assert "revoked" in cli(*sign).err
    assert "1 of 80 items may not be used (erased on request)" in cli(*ask, "--void", void).out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("only.json",), "two sides are compared"),
        (("bad.json", "bad.json"), "holds no scores"),
        (("--replay", "bad.json"), "not a verdict's file"),
    ],
)
def test_what_cannot_be_compared_is_refused(cli, tmp_path, policy, words, message):
    (tmp_path / "bad.json").write_text("{}")
    open_store("escultor-store").close()
    call = cli("compare", *words)
    assert call.code == 2
    assert message in call.err


def test_an_unknown_key_of_a_policy_is_refused(cli, tmp_path, sides):
    (tmp_path / "p.yaml").write_text("gaurds: {}\n")
    call = cli("compare", *sides, "--policy", "p.yaml")
    assert call.code == 2
    assert "did you mean `guards`" in call.err


def test_a_verdict_is_measured_once_and_has_one_id_in_log_and_file(cli, tmp_path, sides, policy, monkeypatch):
    calls = []
    monkeypatch.setattr(decision, "measure", lambda *a: calls.append(a) or effects.measure(*a))
    id = cli("compare", *sides, "--policy", policy, "--out", "out", "--json").data["id"]
    assert len(calls) == 1
    assert json.loads((tmp_path / "out" / "verdict.json").read_text())["because"]["id"] == id
    with open_store("escultor-store") as store:
        assert store.log.get(Verdict, id) is not None


def test_a_file_of_the_first_format_is_replayed_by_its_figures(cli, tmp_path, sides, policy):
    cli("compare", *sides, "--policy", policy, "--out", "out")
    file = tmp_path / "out" / "verdict.json"
    content = json.loads(file.read_text()) | {"format": "escultor-verdict/1", "reason": "other words"}
    file.write_text(json.dumps(content))
    assert cli("compare", "--replay", file).code == 0
    content["because"]["effects"][0]["difference"] += 0.01
    file.write_text(json.dumps(content))
    assert "not what its inputs give" in cli("compare", "--replay", file).err


def test_a_policy_that_can_promote_nothing_on_a_suite_is_refused_before_anything_is_measured(
    cli, tmp_path, model, other_model, monkeypatch
):
    head = {"name": "pets", "metrics": ["exact_match", "contains"], "decoding": {"max_new_tokens": 2}}
    rows = ({"id": f"i{n}", "prompt": f"cat {n}", "reference": "dog"} for n in range(6))
    suite = jsonl(tmp_path / "suite.jsonl", head, *rows)
    ask = ("compare", model, other_model, "--suite", suite, *SMALL, "--policy", "p.yaml")
    rules = "primary: [exact_match]\nguards: {contains: 0.02}\nmin_items: 2\n"
    (tmp_path / "p.yaml").write_text(rules)
    monkeypatch.setattr("escultor.cli.evaluate.recorded_scores", None)
    call = cli(*ask)
    assert call.code == 2
    assert (
        "Nothing can be promoted on suite `pets`: 6 items, and the policy requires at least 149" in call.err
    )
    assert "margins that this size could show: contains 0.394" in call.err
    (tmp_path / "p.yaml").write_text(rules + "vetoes: {sycophancy: {worse_by: 0}}\n")
    call = cli(*ask)
    assert call.code == 2
    assert "veto on 'sycophancy' names nothing that is measured; known: " in call.err


# --- canary -------------------------------------------------------------------------------------


def asked(store, version, subject, when, bad):
    made = Interaction(
        new_id("chatcmpl"), when, "chat", subject, version, "champion", 0.5, (Message(Role.USER, "hi"),),
        "yes", "stop", Sampling(), Usage(1, 1), 10.0, 5.0, 0.001, "hash",
    )  # fmt: skip
    store.log.append(made, Rating(new_id("fb"), when, made.id, subject, "thumb", not bad))


def test_a_canary_is_analysed_and_rolled_back_for_harm(cli):
    began = time.time() - 100
    with open_store("escultor-store") as store:
        first = registry.deployment_for("a person", "old", None, now=began)
        store.log.append(first, registry.trial("begun", "new", 0.5, first, now=began + 1))
        for k in range(300):
            asked(store, "old", f"a{k}", began + 2, k % 10 == 0)
            asked(store, "new", f"b{k}", began + 2, k % 3 == 0)
    call = cli("canary", "watch", "--json")
    assert (call.code, call.data["move"]) == (3, "rollback"), call.err
    assert "harm shown: thumbs down" in call.data["reason"]
    with open_store("escultor-store") as store:
        last = store.log.last(Deployment)
        assert last is not None
        assert last.shares == {"old": 1.0}
        assert "candidate" not in last.aliases
        assert store.log.count(Verdict) == 0
        assert store.log.count(Scores) == 0
    assert "no canary trial is in progress" in cli("canary", "watch").err
    assert plain(last)["because"].startswith("canary: harm shown")


def test_a_canary_without_harm_is_held_until_its_minimums(cli):
    began = time.time() - 100
    with open_store("escultor-store") as store:
        first = registry.deployment_for("a person", "old", None, now=began)
        store.log.append(first, registry.trial("begun", "new", 0.5, first, now=began + 1))
        for k in range(120):
            asked(store, "old", f"a{k}", began + 2, k % 10 == 0)
            asked(store, "new", f"b{k}", began + 2, k % 10 == 0)
    call = cli("canary", "watch", "--json")
    assert (call.code, call.data["move"]) == (0, "hold")
    assert "120 of 200 answers" in call.data["reason"]
    stopped = cli("canary", "stop", "--json")
    assert stopped.data["shares"] == {"old": 1.0}
    assert cli("canary", "sideways").code == 2
