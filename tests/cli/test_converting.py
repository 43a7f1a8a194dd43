"""`feedback convert`, `advise`, `quarantine`; a turn learns from what no promoted model has learnt from."""

from dataclasses import replace

from cli_rows import SMALL
from test_judging import served_pairs

from escultor.cycle import steps
from escultor.data.jsonl import read_jsonl
from escultor.serve.auth import Keyring
from escultor.store import open_store, registry
from escultor.store.blobs import tree_hash
from escultor.store.cycles import CONSUMED, consumed
from escultor.types import (
    DatasetVersion,
    Deployment,
    Interaction,
    KeyEvent,
    Message,
    QuarantineOverride,
    Rating,
    Role,
    Sampling,
    Step,
    Usage,
)


def flood(store, votes: int = 80) -> None:
    """One person who votes much too often, and ten who are not."""
    for n in range(votes + 10):
        who = "mallory" if n < votes else f"p{n}"
        said = (Message(Role.USER, f"bird {n}"),)
        store.log.append(
            Interaction(
                f"flood-{n}", 1000.0 + n, "trinity", who, "v", "champion", 1.0, said, f"cat {n}", "stop",
                Sampling(), Usage(3, 2), 5.0, None, 1e-6, f"flood-{n}",
            ),
            Rating(f"f-{n}", 2000.0 + n, f"flood-{n}", who, "thumb", True),
        )  # fmt: skip


def test_convert_writes_files_that_training_reads_and_a_card(cli, corpus, tmp_path):
    with open_store("escultor-store") as store:
        served_pairs(store, "v")
    call = cli("feedback", "convert", "--out", "june.jsonl", "--json")
    assert call.code == 0, call.err
    assert call.data["rows"] == {"example": 0, "pair": 24, "unpaired": 0}
    pairs = read_jsonl(tmp_path / "june.pair.jsonl", "pair")
    assert len(pairs.items) == 24
    assert "same-prompt/4" in (tmp_path / "june.card.md").read_text()
    assert "<td>same-prompt/4</td>" in (tmp_path / "june.card.html").read_text()
    card = cli("data", "card", "june-pair", "--json").data
    assert (card["kind"], card["rows"]) == ("pair", 24)
    assert cli("data", "card", "june-pair", "--out", "c.html").code == 0
    assert "24 pairs (thumbs 24): too few for DPO; 76 more needed" in (tmp_path / "c.html").read_text()
    with open_store("escultor-store") as store:
        (version,) = [v for _, v in store.log.read(DatasetVersion)]
        assert (version.name, version.rows) == ("june-pair", 24)
    assert cli("feedback", "convert", "--out", "june.jsonl", "--json").data["reused"]
    assert cli("feedback", "convert", "--out", "a/b").code == 2


def test_advise_says_what_is_lacking_and_what_there_is(cli, corpus):
    assert cli("feedback", "advise").code == 2  # no store yet
    with open_store("escultor-store") as store:
        served_pairs(store, "v")
    call = cli("feedback", "advise")
    assert "24 pairs (thumbs 24): too few for DPO; 76 more needed" in call.out
    call = cli("feedback", "advise", "--set", "feedback.min_pairs=20", "--json")
    assert call.data["stages"] == ["dpo"]


def test_whom_the_owner_trusts_is_named_once_and_no_longer_held_back(cli, corpus):
    with open_store("escultor-store") as store:
        served_pairs(store, "v")
        flood(store)
    assert cli("feedback", "quarantine", "--json").data["held"]
    call = cli("feedback", "advise", "--trust", "nobody", "--json")
    assert call.code == 2
    assert "nobody of this name gave feedback" in call.err
    for _ in range(2):  # the second time it is known already
        call = cli("feedback", "advise", "--trust", "mallory", "--trust", "p80")
        assert call.code == 0, call.err
        assert "trusted: mallory (mallory)" in call.out
    assert cli("feedback", "quarantine", "--json").data["held"] == []
    made = cli("feedback", "convert", "--out", "june", "--json").data
    assert made["card"]["trusted_subjects"] == 2
    assert made["rows"]["example"] + made["rows"]["unpaired"] >= 80
    with open_store("escultor-store") as store:
        given = [entry for _, entry in store.log.read(QuarantineOverride)]
    assert sorted(entry.reason for entry in given) == ["--trust mallory", "--trust p80"]


def test_what_is_held_back_is_listed_and_released(cli, corpus):
    with open_store("escultor-store") as store:
        flood(store)
    assert cli("feedback", "convert", "--out", "all", "--json").data["rows"]["unpaired"] == 10
    held = cli("feedback", "quarantine", "--json").data["held"]
    assert {(h["subject"], h["rule"]) for h in held} == {("mallory", "rate_anomaly")}
    assert "80 verdicts in one hour" in cli("feedback", "quarantine", "list").out
    shown = cli("feedback", "quarantine", "show", held[0]["id"], "--json")
    assert len(shown.data["words"]) == 20
    assert {w["said"] for w in shown.data["words"]} == {"good"}
    assert all(w["prompt"] and w["text"] for w in shown.data["words"])
    assert cli("feedback", "quarantine", "show", "nobody").code == 2
    assert cli("feedback", "quarantine", "release", held[0]["id"]).code == 2  # no reason
    assert cli("feedback", "quarantine", "release", "nobody", "--reason", "x").code == 2
    for entry in held:
        assert (
            cli("feedback", "quarantine", "release", entry["id"], "--reason", "a class of pupils").code == 0
        )
    assert cli("feedback", "quarantine", "--json").data["held"] == []
    assert cli("feedback", "convert", "--out", "all", "--json").data["rows"]["unpaired"] > 10
    with open_store("escultor-store") as store:
        assert store.log.count(QuarantineOverride) == len(held)


def test_a_turn_takes_up_what_no_promoted_model_has_learnt_from(cli, model, corpus):
    cli("promote", model, "--because", "the first")
    with open_store("escultor-store") as store:
        served_pairs(store, tree_hash(model))
        assert consumed(store, "trinity") == 0
    few = ("--set", "feedback.min_pairs=20", "--set", "dpo.max_steps=1")
    assert cli("cycle", *SMALL, *few).code == 3  # held: nothing is consumed
    with open_store("escultor-store") as store:
        assert consumed(store, "trinity") == 0
        store.log.append(Step("k", 1.0, CONSUMED, 0.0, {"until": store.log.last_seq()}))
    call = cli("cycle", *SMALL, *few)
    assert call.code == 2
    assert "no pairs: too few for DPO; 20 more needed" in call.err
    assert cli("cycle", "--since", "1970-01-02", *SMALL, *few).code in (2, 3)


def test_a_promotion_by_hand_names_who_approved_it_and_consumes_what_it_learnt_from(
    cli, model, corpus, monkeypatch
):
    cli("promote", model, "--because", "the first")
    with open_store("escultor-store") as store:
        served_pairs(store, tree_hash(model))
        learnt = store.log.last_seq()
    few = ("--set", "feedback.min_pairs=20", "--set", "dpo.max_steps=1")
    assert cli("cycle", *SMALL, *few).code == 3
    with open_store("escultor-store") as store:
        (step,) = [step for _, step in store.log.read(Step, target=CONSUMED)]
        assert consumed(store, "trinity") == 0
    made = cli("keys", "create", "Ana", "--scope", "approve", "--json").data
    order = ("promote", step.result["checkpoint"], "--because", "I tried it")
    assert "a person who may approve" in cli(*order).err
    monkeypatch.setenv("ESCULTOR_APPROVAL_KEY", made["key"])
    assert cli(*order).code == 0
    with open_store("escultor-store") as store:
        assert consumed(store, "trinity") >= learnt
        last = registry.current(registry.read_deployments(store.log))
        assert last is not None
        assert last.because == f"I tried it (approved by Ana (key {made['id']}))"
        assert not Keyring(event for _, event in store.log.read(KeyEvent)).guarded
    assert "no pairs: too few for DPO" in cli("cycle", *SMALL, *few).err


def test_a_promotion_consumes_what_it_learnt_from_and_no_more(cli, model, corpus, monkeypatch):
    """A real turn; only the quality that was measured of the new model is made better than it is."""
    cli("promote", model, "--because", "the first")
    first, measured = tree_hash(model), steps.evaluate

    def flattering(loaded, checkpoint, suite, *rest, **options):
        done = measured(loaded, checkpoint, suite, *rest, **options)
        if checkpoint == first:
            return done
        better = tuple(0.9 + n / 1000 for n in range(len(done.scores.items)))
        return replace(done, scores=replace(done.scores, metrics=done.scores.metrics | {"quality": better}))

    monkeypatch.setattr(steps, "evaluate", flattering)
    with open_store("escultor-store") as store:
        served_pairs(store, first)
        learnt = store.log.last_seq()
    few = ("--set", "feedback.min_pairs=20", "--set", "dpo.max_steps=1")
    easy = ("--set", "gate.guards={}", "--set", "gate.min_items=2")
    call = cli("cycle", *SMALL, *few, *easy, "--json")
    assert call.code == 0, call.err
    with open_store("escultor-store") as store:
        (step,) = [step for _, step in store.log.read(Step, target=CONSUMED)]
        assert consumed(store, "trinity") == step.result["until"] >= learnt
        now = registry.champion([d for _, d in store.log.read(Deployment)])
        assert now == step.result["checkpoint"] != first
    assert "no pairs: too few for DPO" in cli("cycle", *SMALL, *few, *easy).err
    with open_store("escultor-store") as store:
        store.log.append(Rating("late", 9e9, "chat-0", "somebody else", "thumb", True))
    assert "1 pair (thumbs 1): too few for DPO" in cli("cycle", *SMALL, *few, *easy).err
