import json
import math
import os
import signal
import subprocess
import sys
import textwrap
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch

from escultor.batching.batches import nll_batch
from escultor.batching.rows import example_rows
from escultor.errors import LocationError, StoreError, TrainingError
from escultor.model.forward import logp_at_labels
from escultor.text.chat import ChatTemplate
from escultor.train import loop
from escultor.train.loop import Objective, train
from escultor.train.objectives.loss import Loss
from escultor.train.objectives.nll import nll
from escultor.train.optim import Optimizers
from escultor.train.resume import RunFolder
from escultor.train.streams import RowStream


def loss_of(model, batch, before):
    return nll(logp_at_labels(model, batch.packed), batch.weight)


objective = Objective(loss_of)


def stream(rows=None, **changes):
    return RowStream(rows or tiny.nll_rows(12), tiny.settings(epochs=3, **changes), nll_batch)


def forgetful():
    """A model with dropout, whose training depends on the random generator's state."""
    model = tiny.llama().model
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = 0.1
    torch.manual_seed(11)
    return model


class Stop(Exception):
    pass


def stop_at(step):
    def on_step(report):
        if report.step == step:
            raise Stop

    return on_step


@pytest.fixture
def save_always(monkeypatch):
    monkeypatch.setattr(loop, "SAVE_EVERY_S", -1.0)


# --- the loop divides -------------------------------------------------------------------------


def gradients(monkeypatch, micro_batch_size, loss=objective):
    """Loss and summed gradient of one step of 8 ragged rows, cut as told."""
    seen = []

    def record(self, share):
        seen.append(torch.cat([p.grad.flatten() for p in model.parameters()]))

    monkeypatch.setattr(Optimizers, "step", record)
    model = tiny.llama().model
    own = tiny.settings(batch_size=8, micro_batch_size=micro_batch_size, max_grad_norm=1e9)
    report = train(model, RowStream(tiny.nll_rows(), own, nll_batch), loss, own)
    monkeypatch.undo()
    return report.loss, seen[0], report


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_step_does_not_depend_on_how_it_was_cut(monkeypatch, size):
    loss, gradient, report = gradients(monkeypatch, None)
    cut_loss, cut, cut_report = gradients(monkeypatch, size)
    assert cut_loss == pytest.approx(loss, abs=1e-6)
    torch.testing.assert_close(cut, gradient, atol=1e-6, rtol=0)
    assert report.tokens == cut_report.tokens == sum(row.length for row in tiny.nll_rows())


def test_a_mean_of_means_would_be_noticed(monkeypatch):
    def mean(model, batch, before):
        loss = loss_of(model, batch, before)
        return Loss(loss.total / loss.weight, 1.0)

    _, gradient, _ = gradients(monkeypatch, None)
    _, wrong, _ = gradients(monkeypatch, 2, Objective(mean))
    assert (wrong - gradient).norm() / gradient.norm() > 0.01


def test_gradients_left_over_from_before_do_not_count():
    clean, dirty = tiny.llama().model, tiny.llama().model
    for parameter in dirty.parameters():
        parameter.grad = torch.full_like(parameter, float("nan"))
    for model in (clean, dirty):
        train(model, stream(max_steps=1), objective, tiny.settings())
    assert tiny.same_weights(clean, dirty)


# --- resuming ---------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("k", [1, 5])
def test_k_steps_and_resume_are_as_if_nothing_had_happened(tmp_path, save_always, optimizer, k):
    rows = stream(optimizer=optimizer, schedule="cosine", warmup_steps=2, weight_decay=0.1)
    whole = forgetful()
    last = train(whole, rows, objective, rows.settings, RunFolder(tmp_path / "whole", "key"))
    run = RunFolder(tmp_path / "cut", "key")
    with pytest.raises(Stop):
        train(forgetful(), rows, objective, rows.settings, run, stop_at(k))
    again = forgetful()
    torch.manual_seed(99)  # the generator's state comes from the folder
    resumed = train(again, rows, objective, rows.settings, run)
    assert rows.steps == 9
    assert tiny.same_weights(whole, again)
    assert (last.loss, last.tokens, last.lr) == (resumed.loss, resumed.tokens, resumed.lr)
    assert [row["step"] for row in run.read_metrics()] == list(range(1, 10))
    kept = ("step", "loss", "tokens", "lr", "grad_norm")
    one, other = (RunFolder(tmp_path / name, "key").read_metrics() for name in ("whole", "cut"))
    assert [[row[k] for k in kept] for row in one] == [[row[k] for k in kept] for row in other]


KILLED = """
import os, signal, sys
import test_loop, tiny
from escultor.train import loop
from escultor.train.optim import Optimizers
from escultor.train.resume import RunFolder

loop.SAVE_EVERY_S = -1.0
save = loop.save_state
loop.save_state = lambda run, progress, *rest: progress[0] == 5 or save(run, progress, *rest)

def kill(report):
    if report.step == 5:  # step 5 has its row, but not its state; step 6 was being written
        with open(run.metrics, "a") as file:
            file.write('{"step": 6, "lo')
        os.kill(os.getpid(), signal.SIGKILL)

run = RunFolder(test_loop.Path(sys.argv[1]), "key")
rows = test_loop.stream(optimizer="muon")
loop.train(test_loop.forgetful(), rows, test_loop.objective, rows.settings, run, kill)
"""


def test_a_killed_process_goes_on_bit_for_bit(tmp_path):
    folder = tmp_path / "run"
    own = [str(Path(__file__).parent), str(Path(tiny.__file__).parent)]
    path = os.pathsep.join([*own, *filter(None, [os.environ.get("PYTHONPATH")])])
    child = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLED), str(folder)],
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert child.returncode == -signal.SIGKILL, child.stderr
    run, rows = RunFolder(folder, "key"), stream(optimizer="muon")
    assert len(run.metrics.read_text().splitlines()) == 6
    again, whole = forgetful(), forgetful()
    train(whole, rows, objective, rows.settings)
    train(again, rows, objective, rows.settings, run)
    assert tiny.same_weights(whole, again)
    assert [row["step"] for row in run.read_metrics()] == list(range(1, 10))


def test_rows_of_metrics_are_cut_whole_or_not_at_all(tmp_path, monkeypatch):
    run, rows = RunFolder(tmp_path, "key"), stream()
    train(tiny.llama().model, rows, objective, rows.settings, run)
    before = run.metrics.read_text()
    write = Path.write_text

    def killed(path, text, **how):
        write(path, text[: len(text) // 2], **how)
        raise Stop

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", killed)
        with pytest.raises(Stop):
            run.load()
    assert run.metrics.read_text() == before
    assert run.load()["step"] == rows.steps
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.jsonl", "state.pt"]


def test_what_a_killed_process_left_half_written_is_no_other_run(tmp_path):
    run = RunFolder(tmp_path, "key")
    run.append_metrics({"step": 1})
    (tmp_path / ".last-good.7.tmp").mkdir()
    assert run.begun
    assert run.load() is None
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "notes.tmp").touch()
    assert not run.begun


def test_a_finished_run_takes_no_step(tmp_path):
    run, rows = RunFolder(tmp_path, "key"), stream()
    done = tiny.llama().model
    train(done, rows, objective, rows.settings, run)
    again = tiny.llama(seed=5).model
    assert train(again, rows, objective, rows.settings, run) is None
    assert tiny.same_weights(done, again)
    assert len(run.read_metrics()) == rows.steps


def test_a_run_that_never_saved_begins_again(tmp_path):
    run, rows = RunFolder(tmp_path, "key"), stream()
    with pytest.raises(Stop):
        train(tiny.llama().model, rows, objective, rows.settings, run, stop_at(3))
    assert len(run.read_metrics()) == 3
    train(tiny.llama().model, rows, objective, rows.settings, run)
    assert [row["step"] for row in run.read_metrics()] == list(range(1, rows.steps + 1))


def test_the_state_of_another_run_is_refused(tmp_path):
    rows = stream()
    train(tiny.llama().model, rows, objective, rows.settings, RunFolder(tmp_path, "one"))
    with pytest.raises(TrainingError, match=r"another run; got: run one; allowed: run two; remedy: .*--out"):
        train(tiny.llama().model, rows, objective, rows.settings, RunFolder(tmp_path, "two"))


@pytest.mark.parametrize("content", [b"", b"garbage", None])
def test_a_damaged_state_is_refused_with_the_remedy(tmp_path, content):
    run, rows = RunFolder(tmp_path, "key"), stream()
    train(tiny.llama().model, rows, objective, rows.settings, run)
    path = tmp_path / "state.pt"
    path.write_bytes(path.read_bytes()[:-1000] if content is None else content)
    with pytest.raises(StoreError, match=r"state\.pt cannot be read.*remedy: delete it"):
        run.load()


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("unexpected pos 64")])
def test_a_full_disk_leaves_the_old_state(tmp_path, monkeypatch, save_always, error):
    run, rows = RunFolder(tmp_path, "key"), stream()
    with pytest.raises(Stop):
        train(tiny.llama().model, rows, objective, rows.settings, run, stop_at(2))
    before = (tmp_path / "state.pt").read_bytes()

    def full(state, file):
        file.write(b"half")
        raise error

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(StoreError, match=r"state could not be written.*remedy: free disk space"):
        train(tiny.llama().model, rows, objective, rows.settings, run)
    assert (tmp_path / "state.pt").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.jsonl", "state.pt"]


def test_figures_that_cannot_be_written_stop_the_run_with_the_remedy(tmp_path):
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(LocationError, match=r"metrics could not be written.*remedy: free disk space"):
        RunFolder(tmp_path, "key").append_metrics({"step": 1})


def test_a_finished_runs_state_is_removed_and_its_metrics_stay(tmp_path):
    run, rows = RunFolder(tmp_path, "key"), stream()
    train(tiny.llama().model, rows, objective, rows.settings, run)
    run.finish()
    run.finish()
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


# --- runs that have to stop -------------------------------------------------------------------


def test_a_loss_that_is_not_finite_stops_and_names_step_and_rows(tmp_path, save_always):
    rows = tiny.nll_rows(8)
    broken = RowStream(
        [replace(r, weight=float("inf")) if i == 5 else r for i, r in enumerate(rows)],
        tiny.settings(shuffle=False),
        nll_batch,
    )
    run, model = RunFolder(tmp_path, "key"), tiny.llama().model
    with pytest.raises(
        TrainingError, match=r"loss of step 2 is not finite; got: inf on rows .*row5.*saved state"
    ):
        train(model, broken, objective, broken.settings, run)
    state = run.load()
    assert state["step"] == 1
    assert all(torch.equal(state["model"][name], value) for name, value in model.state_dict().items())
    assert len(run.read_metrics()) == 1
    mended, whole = (replace(broken, rows=rows) for _ in range(2))
    train(model, mended, objective, broken.settings, run)
    other = tiny.llama().model
    train(other, whole, objective, broken.settings)
    assert tiny.same_weights(model, other)  # as if it had never been broken


def test_a_gradient_that_is_not_finite_stops():
    def steep(model, batch, before):
        loss = loss_of(model, batch, before)
        return replace(loss, total=loss.total + torch.sqrt(model.lm_head.weight * 0).sum())

    model = tiny.llama().model
    with pytest.raises(TrainingError, match="gradient norm of step 1 is not finite; got: nan on rows row"):
        train(model, stream(), Objective(steep), tiny.settings())
    assert tiny.same_weights(model, tiny.llama().model)


def test_a_step_without_weight_is_refused():
    rows = stream(tiny.weighted(tiny.nll_rows(), 0.0))
    with pytest.raises(TrainingError, match=r"step 1 has nothing to learn from; got: weight 0\.0"):
        train(tiny.llama().model, rows, objective, rows.settings)


# --- what is reported -------------------------------------------------------------------------


def test_every_step_is_reported_and_written(tmp_path):
    run, rows, seen = RunFolder(tmp_path, "key"), stream(), []
    last = train(tiny.llama().model, rows, objective, rows.settings, run, seen.append)
    assert [report.step for report in seen] == list(range(1, rows.steps + 1))
    assert seen[-1] == last
    assert [json.loads(line) for line in run.metrics.read_text().splitlines()] == [r.row() for r in seen]
    assert last.tokens == 3 * sum(row.length for row in rows.rows)
    assert all(math.isfinite(value) for report in seen for value in report.row().values())
    assert [report.seconds for report in seen] == sorted(report.seconds for report in seen)


def test_a_fresh_model_begins_at_the_logarithm_of_the_vocabulary():
    first = train(tiny.llama().model, stream(max_steps=1), objective, tiny.settings())
    assert first.loss == pytest.approx(math.log(tiny.VOCABULARY), abs=0.1)


# --- and it learns ----------------------------------------------------------------------------


@torch.no_grad()
def greedy(model, prompt, most):
    ids = list(prompt)
    for _ in range(most):
        ids.append(int(model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
        if ids[-1] == 2:
            break
    return ids[len(prompt) :]


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_eight_examples_are_learnt_by_heart_to_their_ends(optimizer):
    loaded = tiny.llama()
    chat = ChatTemplate(loaded.tokenizer)
    rows = example_rows(tiny.examples(8), chat, 64, Counter())
    own = tiny.settings(epochs=200, batch_size=8, optimizer=optimizer)
    last = train(loaded.model, RowStream(rows, own, nll_batch), objective, own)
    assert last.loss < 0.05
    for example in tiny.examples(8):
        rendered = chat.example(example.prompt, example.response)
        assert greedy(loaded.model, rendered.prompt, 20) == rendered.response
