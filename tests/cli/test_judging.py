"""`compare`, `cycle`, and the library behind them."""

import re
import time
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from cli_rows import SMALL

import escultor
from escultor.config import load_config
from escultor.cycle import api, evaluation_service
from escultor.demo.suite import trinity_suite
from escultor.errors import InputError
from escultor.skills.trinity import Trinity
from escultor.store import open_store
from escultor.store.blobs import tree_hash
from escultor.types import Hold, Interaction, Message, Plan, Promote, Rating, Role, Sampling, Scores, Usage

CONFIG = load_config(None, SMALL[1::2])
FREE = ("--set", "gate.guards={valid: 1.0}", "--set", "evaluation.speed_requests=null")


def test_compare_measures_once_and_holds_without_evidence(cli, model, other_model, corpus, monkeypatch):
    call = cli("compare", model, other_model, *SMALL, "--json")
    assert call.code == 3, call.err
    assert call.data["verdict"] == "hold"
    assert "6 items" in call.data["reason"]
    monkeypatch.setattr(evaluation_service, "evaluate_folder", None)
    again = cli("compare", model, other_model, *SMALL, "--json")
    assert again.data == call.data
    assert cli("compare", model, model, *SMALL).code == 3


def test_compare_leaves_with_0_for_a_promotion(cli, model, other_model, corpus):
    suite = trinity_suite(corpus.held_out, CONFIG.evaluation)
    items, clusters = tuple(map(str, range(80))), tuple(f"c{i}" for i in range(80))
    with open_store("escultor-store") as store:
        for folder, quality in ((model, 0.2), (other_model, 0.9)):
            metrics = {name: (value,) * 80 for name, value in (("valid", 1.0), ("bits_per_byte", 1.0))}
            metrics["quality"] = tuple(quality + i / 1000 for i in range(80))
            scores = Scores(folder.name, tree_hash(folder), suite.id, items, clusters, metrics)
            store.log.append(replace(scores, summary={"parameters": 1000.0}))
    call = cli(
        "compare",
        model,
        other_model,
        *SMALL,
        "--set",
        "gate.guards={valid: 1.0}",
        "--set",
        "evaluation.speed_requests=null",
    )
    assert call.code == 0, call.err
    assert "Promote:" in call.out
    assert "+0.7000" in call.out
    swapped = cli(
        "compare",
        other_model,
        model,
        *SMALL,
        "--set",
        "gate.guards={valid: 1.0}",
        "--set",
        "evaluation.speed_requests=null",
        "--json",
    )
    assert (swapped.code, swapped.data["verdict"]) == (3, "reject")


def test_a_model_that_is_none_is_refused_before_the_corpus_is_read(cli, tmp_path, model):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{}")
    (tmp_path / "broken" / "model.safetensors").write_bytes(b"no weights")
    for words in (("evaluate", "broken"), ("compare", model, "broken"), ("compare", "nothing", model)):
        assert cli(*words).code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["broken"]


# --- from feedback ----------------------------------------------------------------------------


def trinity_of(n: int) -> str:
    return Trinity("dog", "other", "reference", (), f"Dog {n}.").to_json()


def served_pairs(store, version: str, prompts: int = 24) -> None:
    """Two answers to each prompt, one liked and one not."""
    for n in range(2 * prompts):
        said = (Message(Role.USER, f"cat {n // 2}"),)
        store.log.append(
            Interaction(
                f"chat-{n}", 1000.0 + n, "trinity", f"someone-{n // 2}", version, "champion", 1.0, said,
                trinity_of(n % 2), "stop", Sampling(), Usage(3, 2), 5.0, None, 1e-6, f"prompt-{n // 2}",
            ),
            Rating(f"thumb-{n}", 2000.0 + n, f"chat-{n}", f"someone-{n // 2}", "thumb", n % 2 == 0),
        )  # fmt: skip


def test_cycle_turns_feedback_into_a_verdict(cli, model, corpus):
    cli("promote", model, "--because", "the first")
    with open_store("escultor-store") as store:
        served_pairs(store, tree_hash(model))
    call = cli("cycle", *SMALL, "--set", "dpo.max_steps=1", "--set", "feedback.min_pairs=20", "--json")
    assert call.code == 3, call.err
    assert call.data["verdict"] == "hold"
    assert call.data["champion"] == tree_hash(model)
    assert [m["method"] for m in cli("models", "--json").data["models"]] == ["import", "dpo"]
    assert cli("models", "--json").data["aliases"] == {"champion": tree_hash(model)}


def test_cycle_says_what_is_lacking(cli, model, corpus):
    cli("promote", model, "--because", "the first")
    call = cli("cycle", "--since", "monthly", *SMALL)
    assert call.code == 2
    assert "too little feedback" in call.err
    assert "`since` cannot be read" in cli("cycle", "--since", "yesterday", *SMALL).err


def test_the_monitor_records_what_it_found_and_plans_once(tmp_path, monkeypatch, model, corpus):
    monkeypatch.chdir(tmp_path)
    monitor = escultor.ProductionMonitor(CONFIG)
    with pytest.raises(InputError, match="no store"):
        monitor.check()
    open_store("escultor-store").close()
    with pytest.raises(InputError, match="nothing to watch"):
        monitor.check()
    with open_store("escultor-store") as store:
        checkpoint, _ = api.promote(store, model, "the first")
        served_pairs(store, checkpoint.id)
    health, alerts, plan = monitor.check(now=5000.0)
    assert health.version == checkpoint.id
    assert next(a for a in alerts if a.rule == "thumbs_down").state == "firing"
    assert plan is not None
    assert plan.because in {a.id for a in alerts}
    with open_store("escultor-store") as store:
        assert store.log.last(Plan) == plan
    assert monitor.check(now=5001.0)[2] is None


def test_monitor_pages_is_acknowledged_and_says_so(cli, model):
    assert "no store" in cli("monitor").err
    cli("promote", model, "--because", "the first")
    call = cli("monitor", "--json")
    assert (call.code, call.data["remedy"], call.data["changes"]) == (0, "none", [])
    now = time.time()
    with open_store("escultor-store") as store:
        said = (Message(Role.USER, "cat"),)
        store.log.append(
            *(
                Interaction(
                    f"chat-{n}", now - 300 + n, "chat" if n < 30 else "completion", "someone",
                    tree_hash(model), "champion", 1.0, said, "", "error", Sampling(),
                    Usage(3, 0), 5.0, None, 0.0, "prompt",
                )
                for n in range(40)
            )
        )  # fmt: skip
    call = cli("monitor", "--json")
    assert (call.code, call.data["remedy"], len(call.data["changes"])) == (3, "person", 1)
    assert [(h["skill"], h["arm"], h["estimates"][0]["n"]) for h in call.data["parts"]] == [
        ("chat", "champion", 30),
        ("completion", "champion", 10),
    ]
    (id,) = call.data["changes"]
    assert "needs a name" in cli("monitor", "--acknowledge", id).err
    assert cli("monitor", "--acknowledge", id, "--by", "ana", "--note", "on it").code == 0
    shown = cli("monitor")
    assert "acknowledged by ana: on it" in shown.out
    assert "40 failed calls of 40" in shown.out
    assert re.search(r"completion, champion +10 +100.0%", shown.out), shown.out
    assert cli("monitor", "--json").data["changes"] == []


def test_feedback_is_read_since_a_moment(tmp_path):
    url = str(tmp_path / "store")
    with open_store(url) as store:
        served_pairs(store, "v", 2)
    feedback = escultor.FeedbackStore(url)
    assert len(feedback.get_feedback()) == 4
    assert [f.id for f in feedback.get_feedback(2002.0)] == ["thumb-2", "thumb-3"]
    assert len(feedback.get_feedback(datetime.fromtimestamp(2003, UTC))) == 1
    assert feedback.get_feedback("monthly") == []


def test_moments():
    assert api.parse_since("daily", 100_000.0) == 100_000 - 86_400
    assert api.parse_since("1970-01-02T00:00:00+00:00") == 86_400
    assert api.parse_since("1970-01-02") == 86_400  # in any local zone
    assert api.parse_since(None) is None
    assert api.parse_since(5) == 5
    with pytest.raises(InputError, match="monthly"):
        api.parse_since("sometimes")


def test_the_library_compares_what_it_evaluated(model, other_model, corpus):
    suite = trinity_suite(corpus.held_out, CONFIG.evaluation)
    one, other = (escultor.evaluate_model(folder, suite, CONFIG) for folder in (model, other_model))
    assert one.suite == other.suite
    assert isinstance(escultor.compare(one, other), Hold)
    assert not isinstance(escultor.compare(one, one), Promote)


def test_the_package_names_its_face_and_nothing_else():
    assert set(escultor.__all__) <= set(dir(escultor))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        escultor.nothing  # noqa: B018
