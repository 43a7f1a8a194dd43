"""Runs of other evaluation tools become scores that the gate compares; what they do not say is asked for."""

import json

import outside_runs
import pytest

from escultor.config import Gate
from escultor.errors import DataError, InputError
from escultor.evaluate.score_files import inspect_logs
from escultor.evaluate.score_files.pairing import pair_runs, read_run
from escultor.evaluate.score_files.scored_run import number

WORSE = {f"i{n}": float(n % 3 == 0) for n in range(60)}
BETTER = {f"i{n}": float(n % 3 != 2) for n in range(60)}


def of_each_tool(folder, values, name):
    """A run of each tool in a folder, as the command line names it."""
    store = folder / "mlflow.db"
    if not store.exists():
        outside_runs.mlflow_store(store, {"champion": WORSE, "candidate": BETTER})
    return {
        "lm-eval": outside_runs.lm_eval(folder / "out" / name, values),
        "inspect": outside_runs.inspect_zip(folder / f"{name}.eval", values),
        "inspect json": outside_runs.inspect_json(folder / f"{name}-inspect.json", values),
        "promptfoo": outside_runs.promptfoo(folder / f"{name}-pf.json", values),
        "langfuse": outside_runs.langfuse(folder / f"{name}-lf.json", values, name),
        "langfuse pages": outside_runs.langfuse_folder(folder / f"{name}-lf", values, name),
        "langfuse experiment": outside_runs.langfuse_experiment(folder / f"{name}-e.json", values, name),
        "langfuse traces": outside_runs.langfuse_traces(folder / f"{name}-t.csv", values, name),
        "mlflow table": outside_runs.mlflow_table(folder / name / "eval_results_table.json", values),
        "mlflow store": f"{store}#{name}",
        "csv": outside_runs.csv_file(folder / f"{name}.csv", values),
    }


def read(path):
    run = read_run(str(path))
    assert run is not None
    return run


def test_every_tool_gives_the_scores_that_were_written(tmp_path):
    champions, candidates = (
        of_each_tool(tmp_path, *each) for each in ((WORSE, "champion"), (BETTER, "candidate"))
    )
    for tool, path in champions.items():
        pair = pair_runs(read(path), read(candidates[tool]))
        metric = "score" if tool == "promptfoo" else next(iter(pair.champion.metrics))
        assert sorted(pair.champion.metrics[metric]) == sorted(WORSE.values()), tool
        assert sorted(pair.candidate.metrics[metric]) == sorted(BETTER.values()), tool
        assert pair.champion.suite == pair.candidate.suite
        assert pair.champion.checkpoint != pair.candidate.checkpoint
        assert len(set(pair.champion.clusters)) == len(WORSE), tool
        assert pair.policy(Gate()).primary[0] in pair.champion.metrics


def test_the_suite_does_not_depend_on_the_values(tmp_path):
    halves = {item: value / 2 for item, value in BETTER.items()}
    paths = [outside_runs.lm_eval(tmp_path / str(n), v) for n, v in enumerate((WORSE, BETTER, halves))]
    first, second = (pair_runs(read(paths[0]), read(path)) for path in paths[1:])
    assert first.champion.suite == second.champion.suite
    assert first.champion.scales["acc"].kind == "binary"
    assert second.champion.scales["acc"].kind == "continuous"


def test_a_direction_that_does_not_hold_for_documents_decides_nothing(tmp_path):
    # lm-eval's perplexity: per document a log-likelihood, of which the aggregate is exp(-mean).
    sides = [
        outside_runs.lm_eval(
            tmp_path / str(n), {f"i{k}": -x for k in range(9)}, metric="perplexity", aggregate=x, higher=False
        )
        for n, x in ((0, 33.0), (1, 115.0))
    ]
    pair = pair_runs(*map(read, sides))
    assert pair.champion.scales["perplexity"].better == "neither"
    with pytest.raises(InputError, match="can decide"):
        pair.policy(Gate())
    with pytest.raises(DataError, match="disagree on the direction"):
        pair_runs(*map(read, sides), lower=["perplexity"])


def test_parts_of_a_figure_of_the_whole_task_are_left_out_with_a_note(tmp_path):
    run = outside_runs.lm_eval(tmp_path / "a", BETTER)
    file = next(run.glob("samples_*.jsonl"))
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for row in rows:  # as the harness logs them: a log-likelihood and its words, a reference and an answer
        row["metrics"] += ["word_perplexity", "ter", "bits_per_byte"]
        row |= {"word_perplexity": [-33.2, 12], "ter": ["right", "wrong"], "bits_per_byte": None}
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    pair = pair_runs(read(run), read(run))
    assert list(pair.champion.metrics) == ["acc"]
    for name in ("word_perplexity", "ter", "bits_per_byte"):
        assert sum(note.startswith(f"{name} is left out") for note in pair.notes) == 1


def test_directions_are_those_stated_else_asked_for(tmp_path):
    lower = [
        outside_runs.lm_eval(tmp_path / n, v, metric="wer", higher=False)
        for n, v in (("a", WORSE), ("b", BETTER))
    ]
    assert pair_runs(*map(read, lower)).champion.scales["wer"].better == "lower"
    sides = [outside_runs.csv_file(tmp_path / f"{n}.csv", WORSE) for n in "ab"]
    for path in sides:
        path.write_text(path.read_text().replace("right", "latency_ms"))
    unknown = pair_runs(*map(read, sides))
    assert unknown.champion.scales["latency_ms"].better == "neither"
    assert "nothing says" in unknown.notes[-1]
    assert pair_runs(*map(read, sides), lower=["latency_ms"]).champion.scales["latency_ms"].better == "lower"


def test_repetitions_are_averaged_and_equal_prompts_share_a_cluster(tmp_path):
    run = read(outside_runs.inspect_zip(tmp_path / "a.eval", WORSE, epochs=3))
    pair = pair_runs(run, run)
    assert pair.champion.metrics["match"] == tuple(WORSE[item] for item in pair.champion.items)
    assert pair.champion.scales["match"].kind == "continuous"
    path = outside_runs.promptfoo(tmp_path / "b.json", WORSE)
    content = json.loads(path.read_text())
    for row in content["results"]["results"]:
        row["vars"]["number"], row["vars"]["question"] = row["testIdx"], "the same"
    path.write_text(json.dumps(content))
    assert len(set(pair_runs(read(path), read(path)).champion.clusters)) == 60  # the prompt has the number


def test_one_question_in_many_stated_clusters_is_one_cluster(tmp_path):
    path = tmp_path / "a.csv"
    lines = [f"i{n},c{n // 2},right,1,{'the same?' if n % 2 else n}" for n in range(60)]
    path.write_text("\n".join(["item,cluster,metric,value,prompt", *lines, "x,cx,right,1,The  SAME?"]))
    assert set(pair_runs(read(path), read(path)).champion.clusters) == {"c0"}
    lines = [f"i{n},c{n // 2},right,1,{n}" for n in range(60)]
    path.write_text("\n".join(["item,cluster,metric,value,prompt", *lines]))
    assert len(set(pair_runs(read(path), read(path)).champion.clusters)) == 30


def test_an_item_without_an_answer_counts_as_the_worst(tmp_path):
    path = outside_runs.inspect_json(tmp_path / "a.json", BETTER)
    content = json.loads(path.read_text())
    for sample in content["samples"][:5]:
        sample |= {"scores": None, "error": {"message": "timeout"}}
    path.write_text(json.dumps(content))
    pair = pair_runs(read(outside_runs.inspect_json(tmp_path / "b.json", BETTER)), read(path))
    assert pair.candidate.metrics["match"][:5] == (0.0,) * 5
    assert any("5 of 60 items have no answer" in note for note in pair.notes)
    for sample in content["samples"][:5]:
        sample |= {"error": None}
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="has no match for 5 of 60 items"):
        pair_runs(read(path), read(path))


def test_what_the_champion_alone_did_not_answer_is_a_tie(tmp_path):
    """Else a run of the champion that broke would promote whoever follows."""
    path = outside_runs.inspect_json(tmp_path / "a.json", BETTER)
    content = json.loads(path.read_text())
    for sample in content["samples"][:30]:
        sample |= {"scores": None, "error": {"message": "rate limit"}}
    path.write_text(json.dumps(content))
    pair = pair_runs(read(path), read(outside_runs.inspect_json(tmp_path / "b.json", WORSE)))
    assert pair.champion.metrics["match"][:30] == pair.candidate.metrics["match"][:30]
    assert any("30 that the candidate answered are ties" in note for note in pair.notes)
    assert pair_runs(read(path), read(path)).champion.metrics["match"][:30] == (0.0,) * 30


def test_repeating_the_bad_items_alone_does_not_help(tmp_path):
    path = outside_runs.inspect_json(tmp_path / "a.json", WORSE)
    content = json.loads(path.read_text())
    bad = [sample for sample in content["samples"] if sample["scores"]["match"]["value"] == "I"]
    content["samples"] += [sample | {"epoch": 2, "scores": {"match": {"value": "C"}}} for sample in bad]
    path.write_text(json.dumps(content))
    pair = pair_runs(read(path), read(path))
    assert pair.candidate.metrics["match"] == tuple(WORSE.values())
    assert any("values of match, of which the first 1 count" in note for note in pair.notes)


def _with_results(folder, **changes):
    file = next(folder.glob("results_*.json"))
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    return folder


def test_runs_of_other_settings_or_not_whole_are_refused(tmp_path):
    zero, five = (
        _with_results(outside_runs.lm_eval(tmp_path / str(n), WORSE), **{"n-shot": {"sums": n}})
        for n in (0, 5)
    )
    with pytest.raises(DataError, match="few-shot examples"):
        pair_runs(read(zero), read(five))
    _with_results(five, **{"n-samples": {"sums": {"original": 900, "effective": 61}}})
    with pytest.raises(DataError, match="not all documents"):
        read(five)
    samples = next(zero.glob("samples_*.jsonl"))
    samples.write_text(samples.read_text() * 2)
    with pytest.raises(DataError, match="there twice"):
        read(zero)


def _csv(path, rows, head="item,metric,value"):
    path.write_text("\n".join([head, *rows]) + "\n")
    return read(path)


def test_a_share_on_one_side_and_a_percentage_on_the_other_are_refused(tmp_path):
    share = _csv(tmp_path / "a.csv", [f"i{n},f1,0.9" for n in range(60)])
    percent = _csv(tmp_path / "b.csv", [f"i{n},f1,60" for n in range(60)])
    with pytest.raises(DataError, match="another unit"):
        pair_runs(share, percent)


@pytest.mark.parametrize("rubric", [(1, 5), (0, 10), (0, 100)])
def test_a_share_on_one_side_and_marks_of_a_rubric_on_the_other_are_refused(tmp_path, rubric):
    share = _csv(tmp_path / "a.csv", [f"i{n},right,{n % 3 // 2}" for n in range(60)])
    marks = _csv(tmp_path / "b.csv", [f"i{n},right,{rubric[n % 3 // 2]}" for n in range(60)])
    with pytest.raises(DataError, match="another unit"):
        pair_runs(share, marks)


NAMES = ["token_count", "flesch_kincaid_grade_level", "Levenshtein", "num_turns", "p99", "length"]


@pytest.mark.parametrize(
    "name", [*NAMES, "MAE", "WordErrorRate", "toxicity_mean", "attack_success", "errorRate"]
)
def test_a_metric_whose_name_says_that_less_is_better_decides_nothing(tmp_path, name):
    run = _csv(tmp_path / "a.csv", [f"i{n},{name},0.{n % 10}" for n in range(60)])
    assert pair_runs(run, run).champion.scales[name].better == "neither"


def test_a_direction_that_a_task_lacks_or_that_its_metrics_name_denies_is_asked_for(tmp_path):
    unstated = outside_runs.lm_eval(tmp_path / "a", BETTER, metric="goodness", higher=None)
    copied = outside_runs.lm_eval(tmp_path / "b", BETTER, metric="my_loss")
    for path, name in ((unstated, "goodness"), (copied, "my_loss")):
        run = read(path)
        assert pair_runs(run, run).champion.scales[name].better == "neither"
        assert pair_runs(run, run, higher=[name]).champion.scales[name].better == "higher"


def test_logs_of_lm_eval_before_0_4_3_are_read(tmp_path):
    sides = []
    for name, values in (("a", WORSE), ("b", BETTER)):
        folder = outside_runs.lm_eval(tmp_path / name, values)
        new, results = next(folder.glob("samples*")), next(folder.glob("results*"))
        rows = [json.loads(line) for line in new.read_text().splitlines()]
        rows = [{k: v for k, v in r.items() if k not in ("metrics", "filter", "doc_hash")} for r in rows]
        old = folder / "pretrained__gpt2,dtype__float_sums.jsonl"
        old.write_text(json.dumps(rows, indent=2))
        results.rename(folder / "results.json")
        new.unlink()
        assert read(old).items == read(folder).items
        sides.append(read(folder))
    pair = pair_runs(*sides)
    assert sides[0].task == "sums"
    assert pair.champion.scales["acc"].better == "higher"
    assert sorted(pair.candidate.metrics["acc"]) == sorted(BETTER.values())


def test_a_folder_with_runs_of_several_models_is_refused_and_earlier_runs_are_told(tmp_path):
    outside_runs.lm_eval(tmp_path / "out" / "a", WORSE)
    again = outside_runs.lm_eval(tmp_path / "out" / "b", BETTER)
    with pytest.raises(InputError, match="2 models"):
        read_run(str(tmp_path / "out"))
    newest = next(again.glob("samples*"))
    newest.with_name("samples_sums_2025-01-02T03-04-05.000000.jsonl").write_bytes(newest.read_bytes())
    assert "b: the last of 2 runs of sums counts" in read(again).notes


def test_sides_that_were_asked_in_other_ways_are_told(tmp_path):
    plain, warm = (outside_runs.lm_eval(tmp_path / name, BETTER) for name in "ab")
    results = next(warm.glob("results*"))
    content = json.loads(results.read_text())
    results.write_text(json.dumps(content | {"gen_kwargs": {"temperature": 0.7}}))
    notes = pair_runs(read(plain), read(warm)).notes
    assert "the sides differ in gen_kwargs: none and {'temperature': 0.7}" in notes


def _inspect(path, change):
    outside_runs.inspect_json(path, WORSE)
    log = json.loads(path.read_text())
    log["samples"] = [change(n, sample) for n, sample in enumerate(log["samples"])]
    path.write_text(json.dumps(log))
    return read(path)


def test_what_a_scorer_of_inspect_could_not_tell_is_the_worst_and_what_was_edited_is_told(tmp_path):
    def scored(sample, value, **more):
        return sample | {"scores": {"match": {"value": value, **more}}}

    unscored = _inspect(tmp_path / "a.json", lambda n, s: scored(s, float("nan")) if n == 3 else s)
    plain = read(outside_runs.inspect_json(tmp_path / "b.json", WORSE))
    pair = pair_runs(plain, unscored)
    assert pair.candidate.metrics["match"][3] == 0
    assert "a.json: 1 samples were left unscored" in pair.notes
    assert pair_runs(unscored, plain).champion.metrics == pair.champion.metrics  # a tie
    edited = _inspect(tmp_path / "c.json", lambda n, s: scored(s, "C", history=[{"value": "I"}]))
    assert any("60 samples were invalidated or their scores edited" in note for note in edited.notes)
    labels = _inspect(
        tmp_path / "d.json",
        lambda n, s: (
            s | {"scores": s["scores"] | {"topic": {"value": "bills"}, "all": {"value": {"x": None}}}}
        ),
    )
    assert labels.metrics == ["match"]


def test_what_promptfoo_names_differently_from_run_to_run_is_no_part_of_an_item(tmp_path):
    def changed(name, values, change):
        path = outside_runs.promptfoo(tmp_path / name, values)
        content = json.loads(path.read_text())
        content["results"]["results"] = [change(row) for row in content["results"]["results"]]
        path.write_text(json.dumps(content))
        return path

    def of_session(row):
        return row | {"vars": row["vars"] | {"sessionId": row["response"]["output"], "_conversation": []}}

    sides = [changed("a.json", WORSE, of_session), changed("b.json", BETTER, of_session)]
    assert len(pair_runs(*map(read, sides)).champion.items) == 60
    bare = read(changed("c.json", WORSE, lambda row: row | {"vars": {}, "score": None}))
    assert len(set(pair_runs(bare, bare).champion.clusters)) == 60
    failed = changed("d.json", BETTER, lambda row: row | {"failureReason": 2 if row["testIdx"] == 1 else 0})
    assert [item.failed for item in read(failed).items.values()].count(True) == 1
    old = changed("e.json", WORSE, lambda row: {k: v for k, v in row.items() if not k.endswith("Idx")})
    content = json.loads(old.read_text())
    rows = content["results"]["results"]
    rows += [row | {"prompt": {"raw": "q", "label": "other"}} for row in rows]
    old.write_text(json.dumps(content))
    with pytest.raises(InputError, match="2 columns"):
        read_run(str(old))
    assert read(f"{old}#other").metrics == ["success", "score"]


def _marked(n):
    """A question, drawn another way for each number."""
    cyrillic = str.maketrans("aeopc", "аеорс")
    text = "Is peace a cope or an excess case?"
    ways = (
        text.translate(cyrillic),
        text.replace(" ", "\u200d "),
        text + "\u0301" * n,
        text + chr(0xE0100 + n),
    )
    return ways[n % 4]


def test_prompts_that_look_the_same_are_one_cluster(tmp_path):
    rows = [f'i{n},right,1,"{_marked(n)}"' for n in range(60)]
    run = _csv(tmp_path / "c.csv", rows, "item,metric,value,prompt")
    assert len(set(pair_runs(run, run).champion.clusters)) == 1


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("item;metric;value\na;right;0,25\nb;right;1\n", [0.25, 1]),
        ("sep=;\nItem;Metric;Value\na;right;0.5\nb;right;75%\n", [0.5, 0.75]),
        ('item,metric,value\na,right,"0,5"\nb,right,true\n', [0.5, 1]),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_csv_is_read_as_spreadsheets_write_it(tmp_path, text, values, encoding):
    (tmp_path / "a.csv").write_bytes(text.encode(encoding))
    assert [item.values["right"] for item in read(tmp_path / "a.csv").items.values()] == [[v] for v in values]


def test_clusters_that_either_side_states_and_prompts_but_for_punctuation_are_one(tmp_path):
    plain = _csv(tmp_path / "a.csv", [f"i{n},right,1" for n in range(60)])
    stated = _csv(
        tmp_path / "b.csv", [f"i{n},c{n // 6},right,1" for n in range(60)], "item,cluster,metric,value"
    )
    assert len(set(pair_runs(plain, stated).champion.clusters)) == 10
    assert len(set(pair_runs(stated, plain).champion.clusters)) == 10
    asked = ["Why is it so?", "why is it so", "Why, is it so…", "What is 2 + 3?", "What is 2 - 3?"]
    rows = [f'i{n},right,1,"{prompt}"' for n, prompt in enumerate(asked)]
    run = _csv(tmp_path / "c.csv", rows, "item,metric,value,prompt")
    assert len(set(pair_runs(run, run).champion.clusters)) == 3


def test_a_choice_is_asked_for_where_a_file_holds_several(tmp_path):
    path = outside_runs.promptfoo(tmp_path / "a.json", WORSE, providers=("openai:gpt", "ollama:qwen"))
    with pytest.raises(InputError, match="2 columns"):
        read_run(str(path))
    assert read(f"{path}#ollama:qwen").model == "ollama:qwen, prompt 1"
    store = outside_runs.mlflow_store(tmp_path / "mlflow.db", {"a": WORSE, "b": BETTER})
    with pytest.raises(InputError, match="2 runs"):
        read_run(str(store))
    folder = outside_runs.lm_eval(tmp_path / "out", WORSE)
    outside_runs.lm_eval(folder, WORSE, task="more")
    with pytest.raises(InputError, match="2 tasks"):
        read_run(str(folder))
    assert read(f"{folder}#more").task == "more"


def test_a_trace_that_two_runs_evaluated_has_the_scores_of_each(tmp_path):
    store = outside_runs.mlflow_store(tmp_path / "mlflow.db", {"a": WORSE})
    outside_runs.mlflow_evaluated_again(store, "a", BETTER, again="b")
    pair = pair_runs(read(f"{store}#a"), read(f"{store}#b"))
    assert sorted(pair.champion.metrics["right"]) == sorted(WORSE.values())
    assert sorted(pair.candidate.metrics["right"]) == sorted(BETTER.values())


def test_a_label_beside_the_scores_is_left_out_with_a_note(tmp_path):
    path = outside_runs.langfuse(tmp_path / "a.json", WORSE)
    content = json.loads(path.read_text())
    scores = content["scores"]["data"]
    scores += [
        score | {"name": "topic", "value": None, "stringValue": "billing", "dataType": "CATEGORICAL"}
        for score in scores
    ]
    path.write_text(json.dumps(content))
    pair = pair_runs(read(path), read(path))
    assert list(pair.champion.metrics) == ["right"]
    assert any("topic is left out where it is a label" in note for note in pair.notes)
    scores[-1]["stringValue"] = "yes"
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="no topic for 59 of 60 items"):
        pair_runs(read(path), read(path))


def test_pages_of_langfuse_that_are_missing_are_told(tmp_path):
    folder = outside_runs.langfuse_folder(tmp_path / "run", WORSE)
    for name in ("items.jsonl", "scores.jsonl"):
        lines = (folder / name).read_text().splitlines()
        (folder / name).write_text(lines[0])
        with pytest.raises(DataError, match="not all pages"):
            read(folder)
        (folder / name).write_text("\n".join(lines))


def test_a_correction_in_langfuse_is_no_score(tmp_path):
    path = outside_runs.langfuse(tmp_path / "a.json", WORSE)
    content = json.loads(path.read_text())
    scores = content["scores"]["data"]
    scores += [
        s | {"name": "better", "value": 0, "dataType": "CORRECTION", "stringValue": "x"} for s in scores
    ]
    scores.append(
        {"name": "run level", "value": 0.5, "dataType": "NUMERIC", "traceId": None, "datasetRunId": "r"}
    )
    path.write_text(json.dumps(content))
    assert list(pair_runs(read(path), read(path)).champion.metrics) == ["right"]


def test_a_scorer_that_failed_left_no_score(tmp_path):
    values = BETTER | {"i3": None}
    store = outside_runs.mlflow_store(tmp_path / "mlflow.db", {"a": WORSE, "b": values})
    with pytest.raises(DataError, match="no right for 1 of 60 items"):
        pair_runs(read(f"{store}#a"), read(f"{store}#b"))


@pytest.mark.parametrize(
    ("name", "text", "what"),
    [
        ("a.json", "{", "no JSON"),
        ("a.json", "{}", "no scores that are known"),
        ("a.csv", "item,metric,value\nx,right,1\nx,right,0\n", "there twice"),
        ("a.csv", "item,metric,value\nx,right,high\n", "no number"),
        ("a.csv", "item,metric,value\nx,right,nan\n", "no number"),
        ("a.csv", "item,metric,value\nx,right\n", "another number of columns"),
        ("a.csv", "item;metric;value\nx;ms;1,250\n", "a thousand or a decimal"),
        ("a.csv", "item;metric;value\nx;f1;0,5\ny;f1;0.5\n", "points and commas are mixed"),
        ("a.csv", "item,metric,value\nx,f1,1_0\n", "no number"),
        ("a.csv", "item,cluster,metric,value\nx,p,right,1\nx,q,f1,1\n", "in two clusters"),
        ("a.csv", "item,metric,value,better\nx,right,1,sideways\n", "direction of right"),
        ("a.eval", "PK", "no whole log"),
        (
            "a.json",
            '{"data": [{"datasetItemId": "a", "scores": {"right": 1' + "0" * 400 + "}}]}",
            "no number",
        ),
        ("samples_t.jsonl", '{"doc_id": 0}\n{"x"\n', "no JSON"),
        ("samples_t.jsonl", '{"id": 0}\n', "no sample of lm-eval"),
        ("samples_t.jsonl", '{"doc_id": 0, "metrics": ["acc"], "acc": NaN}\n', "no number"),
    ],
)
def test_what_is_no_run_is_refused_with_its_place(tmp_path, name, text, what):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=what):
        read_run(str(tmp_path / name))


def test_runs_that_are_not_of_the_same_items_are_refused(tmp_path):
    one = read(outside_runs.csv_file(tmp_path / "a.csv", WORSE))
    other = read(outside_runs.csv_file(tmp_path / "b.csv", {**WORSE, "new": 1.0}))
    with pytest.raises(DataError, match="different items"):
        pair_runs(one, other)
    with pytest.raises(DataError, match="different tools"):
        pair_runs(one, read(outside_runs.inspect_zip(tmp_path / "c.eval", WORSE)))


@pytest.mark.parametrize(
    ("value", "read_as"),
    [("C", 1), ("I", 0), ("P", 0.5), ("PASS", 1), (True, 1), ("0.25", 0.25), ("No", 0), (3, 3)],
)
def test_words_for_scores_are_numbers(value, read_as):
    assert number(value, "x") == read_as


def test_a_sample_that_unpacks_to_more_than_memory_should_hold_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(inspect_logs, "MAX_ENTRY_BYTES", 100)
    with pytest.raises(DataError, match="too large"):
        read(outside_runs.inspect_zip(tmp_path / "a.eval", WORSE))
