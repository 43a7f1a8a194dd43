"""Declarations of skills: what they say, what is refused and how, and where they are found."""

import json
import os
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import yaml

from escultor.config import Config, Evaluation, Gate
from escultor.errors import DataError, FaultError, InputError
from escultor.skills import catalog, unit_tests
from escultor.skills.declaration import parse_skill, read_skill
from escultor.skills.skill import Skill
from escultor.skills.suite_files import skill_examples, skill_suite
from escultor.skills.suites import register, registered_suite
from escultor.skills.table import ModelOutput
from escultor.skills.trinity import PURPOSES, prompt_for
from escultor.store import open_store
from escultor.types import Message, Role

SUPPORT = {
    "name": "support",
    "instruction": "Answer with the queue.",
    "inputs": ["message"],
    "metrics": ["exact_match", {"name": "is_queue", "contains": ["billing"]}],
    "primary": ["exact_match"],
    "guards": {"is_queue": 0.02},
    "decoding": {"max_new_tokens": 8},
    "suite": [{"input": "I was charged twice.", "reference": "billing"}],
    "examples": [{"input": {"message": "It crashes."}, "output": "technical"}],
}


def declared(tmp_path, **changes):
    path = tmp_path / "support.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in {**SUPPORT, **changes}.items() if v is not None}))
    return path


def test_a_declaration_says_prompt_suite_examples_and_policy(tmp_path):
    skill = read_skill(declared(tmp_path))
    asked = (Message(Role.SYSTEM, "Answer with the queue."), Message(Role.USER, "I was charged twice."))
    suite = skill_suite(skill, Evaluation())
    assert suite.items[0].prompt == skill.prompt("I was charged twice.") == asked
    assert suite.metric("is_queue").score(ModelOutput("Billing!"), suite.items[0]) == 1.0
    assert suite.record.decoding.max_new_tokens == 8
    assert skill_examples(skill)[0].prompt == skill.prompt({"message": "It crashes."})
    assert (skill.policy(Gate()).primary, skill.policy(Gate()).guards) == (
        ("exact_match",),
        {"is_queue": 0.02},
    )
    own = Gate(primary=("is_queue",), alpha=0.1)
    assert (skill.policy(own).primary, skill.policy(own).guards, skill.policy(own).alpha) == (
        ("is_queue",),
        {},
        0.1,
    )


def test_braces_in_an_input_are_its_own(tmp_path):
    two = {"inputs": ["a", "b"], "prompt": "{instruction} {a} / {b}"}
    skill = read_skill(declared(tmp_path, **two, suite=None, examples=None))
    (asked,) = skill.prompt({"a": "{b}{instruction}", "b": "{a}"})
    assert asked.content == "Answer with the queue. {b}{instruction} / {a}"
    with pytest.raises(InputError, match=r"inputs are not those.*allowed: a, b"):
        skill.prompt({"a": "x"})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"metrics": ["exact"]}, r"no metric exact; known: .*exact_match"),
        ({"metrics": [{"name": "x"}]}, "defined by one of contains"),
        ({"metrics": [{"name": "x", "matches": "a", "finds": "b"}]}, "defined by one of"),
        ({"metrics": ["f1", "f1"]}, "f1 twice"),
        ({"primary": ["f1"]}, "primary: f1 is not among its metrics"),
        ({"guards": {"exact_match": 0.1}}, "either a primary or a guard"),
        ({"prompt": "hello"}, r"lacks the input \{message\}"),
        ({"prompt": "{message} {who}"}, r"\{who\} is no input"),
        ({"inputs": ["instruction"], "prompt": None}, "a word of its own"),
        ({"output": "xml"}, "no form of answers"),
        ({"output": {"json": {"type": "objekt"}}}, "schema of the output"),
        ({"colour": "red"}, "colour: .*allowed: name, about"),
        ({"name": "a b"}, "name: "),
        ({"metrics": ["exact_match", {"name": "is_queue", "python": "nowhere.py:f"}]}, "nowhere.py"),
        ({"primary": ["exact_match"] * 2}, "each once"),
        (
            {"metrics": ["exact_match", "answer_tokens"], "guards": {"answer_tokens": 1}},
            "neither more nor less",
        ),
        ({"decoding": {"max_new_tokens": 10**30}}, "max_new_tokens"),
        ({"output": {"files": "sys:maxsize", "schema": {}}}, "no function"),
        *(
            ({"metrics": ["exact_match", {"name": "x", **own}], "guards": {}}, said)
            for own, said in (
                ({"matches": ""}, "at least 1 character"),
                ({"contains": []}, "at least 1 item"),
                ({"field": "a..b"}, "field"),
                ({"unit_tests": "{answer}"}, r"program with \{answer\} and \{reference\}"),
                ({"matches": "a", "code": "c"}, "`code` and `auroc` of x are measured"),
                ({"name": "f1", "matches": "a"}, "`f1` is a metric already"),
                ({"python": "builtins:int"}, "function of other arguments"),
                ({"python": "builtins:len", "scale": {"least": 1, "most": 0}}, "not below"),
                (
                    {"python": "builtins:len", "scale": {"kind": "binary", "most": 5}},
                    "binary metric is 0 or 1",
                ),
            )
        ),
    ],
)
def test_what_is_wrong_is_told_with_what_is_allowed(changes, said, tmp_path):
    with pytest.raises(DataError, match=said):
        read_skill(declared(tmp_path, **changes))


def test_all_problems_are_told_at_once(tmp_path):
    with pytest.raises(DataError) as error:
        read_skill(declared(tmp_path, primary=["f1"], prompt="x", output="xml"))
    assert all(each in str(error.value) for each in ("primary", "lacks the input", "no form"))


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"reference": "x"}], "both `input` and `prompt`, or neither"),
        ([{"input": {"other": "x"}, "reference": "x"}], "inputs are not those"),
        ([{"input": "x"}], "exact_match needs `reference`"),
        ([{"input": "x", "reference": "y", "colour": 1}], "colour"),
        ([{"input": "half a \ud800", "reference": "y"}], "item 1: .*surrogates not allowed"),
        ("os:getcwd", "cannot be made.*a function of settings and a folder"),
        ("builtins:print", "is none"),
    ],
)
def test_items_that_cannot_be_used_are_told(rows, said, tmp_path):
    with pytest.raises(DataError, match=said):
        skill_suite(read_skill(declared(tmp_path, suite=rows)), Evaluation())


def test_examples_keep_to_the_form_of_the_output(tmp_path):
    form = {"json": {"type": "object", "required": ["queue"]}}
    skill = read_skill(declared(tmp_path, output=form))
    with pytest.raises(DataError, match="example 1: its output"):
        skill_examples(skill)


def test_rows_in_a_file_are_those_in_the_declaration(tmp_path):
    (tmp_path / "rows.jsonl").write_text(json.dumps(SUPPORT["suite"][0]) + "\n")
    one = skill_suite(read_skill(declared(tmp_path)), Evaluation())
    assert skill_suite(read_skill(declared(tmp_path, suite="rows.jsonl")), Evaluation()).id == one.id


def test_skills_are_found_by_name_file_and_entry_point(tmp_path, monkeypatch):
    class Entry:
        name, value, dist = "theirs", "their_package:SKILL", None

        @staticmethod
        def load():
            return SUPPORT | {"name": "theirs"}

    monkeypatch.setattr(catalog, "entry_points", lambda group: [Entry] * (group == "escultor.skills"))
    assert catalog.find_skill("theirs").metric("is_queue") is not None
    skills = catalog.load_skills(["theirs", "chat", str(declared(tmp_path))])
    assert list(skills) == ["theirs", "chat", "support"]
    assert {"theirs", "chat", "support", "trinity", "synthesize"} <= set(
        catalog.known_skills(skills["support"] and []) | skills
    )
    Entry.load = staticmethod(lambda: sys.exit(3))
    with pytest.raises(DataError, match=r"skill `theirs` of .* cannot be loaded; got: SystemExit: 3"):
        catalog.find_skill("theirs")
    with pytest.raises(InputError, match=r"no skill `no`.*chat.*remedy: .*skills new"):
        catalog.find_skill("no")
    with pytest.raises(InputError, match="two skills have the name `support`"):
        catalog.load_skills([str(declared(tmp_path))] * 2)
    assert Config(skills=("chat",)).skills == ("chat",)


def test_the_package_declares_what_its_code_does():
    skill = catalog.built_in("trinity")
    assert skill.prompt("text {document}") == prompt_for("text {document}")
    assert tuple(skill.output.schema["properties"]["purpose"]["enum"]) == PURPOSES
    assert all(isinstance(catalog.built_in(name), Skill) for name in catalog.built_in_names())


# --- own metrics ------------------------------------------------------------------------------


def metric_of(definition, folder, reference="-"):
    """How answers score in one metric of a skill's suite."""
    items = [{"input": "q", "reference": reference}]
    skill = parse_skill(
        {"name": "x", "metrics": [{"name": "m", **definition}], "suite": items}, folder, "here"
    )
    suite = skill_suite(skill, Evaluation())
    return lambda answer: suite.metric("m").score(ModelOutput(answer), suite.items[0])


def test_metrics_of_text_json_and_calls(tmp_path):
    queue = metric_of({"matches": "billing|technical"}, tmp_path)
    assert [queue(text) for text in ("billing\n", "billings", "a billing")] == [1, 0, 0]
    assert metric_of({"finds": r"#\d+"}, tmp_path)("see #12 there") == 1
    field = metric_of({"field": "a.1.b"}, tmp_path, '{"a": [0, {"b": 1}]}')
    answers = ('{"a": [9, {"b": 1.0}]}', '{"a": [9, {"b": true}]}', '{"a": {}}', '{"a": []}', "[", "3")
    assert [field(text) for text in answers] == [1, 0, 0, 0, 0, 0]
    call = '{"name": "book", "arguments": {"room": 4}}'
    wire = '[{"id": "1", "type": "function", "function": {"name": "book", "arguments": "{\\"room\\": 4}"}}]'
    named, whole = (metric_of({"tool_call": kind}, tmp_path, call) for kind in ("name", "arguments"))
    other = call.replace("4", "5")
    assert [(named(a), whole(a)) for a in (wire, other, "[]", "{}", "5", "[3]")] == [
        (1, 1),
        (1, 0),
        *[(0, 0)] * 4,
    ]


def test_a_function_is_a_metric_and_its_file_is_part_of_the_suite(tmp_path):
    file = tmp_path / "own.py"
    file.write_text("def length(answer):\n    '''Characters.'''\n    return len(answer)\n")
    scale = {"kind": "continuous", "most": None}
    declaration = {"name": "x", "metrics": [{"name": "m", "python": "own.py:length", "scale": scale}]}
    items = {"suite": [{"input": "q"}]}
    skill = parse_skill(declaration | items, tmp_path, "")
    suite = skill_suite(skill, Evaluation())
    assert suite.metric("m").score(ModelOutput("abc"), suite.items[0]) == 3.0
    with open_store(str(tmp_path / "store")) as store:
        register(store, suite)
        assert registered_suite(store, "x", {"x": skill}).metric("m") is not None
        # A store never brings code with it.
        with pytest.raises(DataError, match=r"in a file that is not declared.*remedy: add its"):
            registered_suite(store, "x")
        file.write_text(file.read_text() + "# changed\n")
        changed = parse_skill(declaration | items, tmp_path, "")
        with pytest.raises(DataError, match="declared otherwise"):
            registered_suite(store, "x", {"x": changed})
        assert skill_suite(changed, Evaluation()).id != suite.id


@pytest.mark.parametrize(
    ("body", "scale", "said"),
    [
        ("raise ValueError('no')", {}, "failed; got: ValueError: no"),
        ("import sys; sys.exit(0)", {}, "failed; got: SystemExit: 0"),
        ("return float('nan')", {"least": None, "most": None}, "out of its scale; got: nan"),
        ("return 2", {}, "out of its scale; got: 2.0; allowed: 0.0 to 1.0"),
        ("return 0.5", {"kind": "binary"}, "out of its scale; got: 0.5; allowed: 0 or 1"),
        ("return 'x'", {}, "failed; got: ValueError"),
    ],
)
def test_a_function_that_says_no_number_of_its_scale_is_a_fault(tmp_path, body, scale, said):
    (tmp_path / "own.py").write_text(f"def f(answer):\n    {body}\n")
    with pytest.raises(FaultError, match=said):
        metric_of({"python": "own.py:f", "scale": scale}, tmp_path, "x")("answer")
    (tmp_path / "own.py").write_text("import sys; sys.exit(0)")
    with pytest.raises(DataError, match="cannot be loaded"):
        metric_of({"python": "own.py:f"}, tmp_path, "x")


def test_metrics_without_code_come_with_the_store(tmp_path):
    skill = read_skill(declared(tmp_path))
    with open_store(str(tmp_path / "store")) as store:
        suite = skill_suite(skill, Evaluation())
        register(store, suite)
        found = registered_suite(store, "support")
        assert found.metric("is_queue").score(ModelOutput("billing"), found.items[0]) == 1.0
        assert found == suite


def test_unit_tests_run_in_a_process_of_their_own(tmp_path):
    passes = metric_of({"unit_tests": "{answer}\n{reference}"}, tmp_path, "assert double(4) == 8")
    fenced = "Here:\n```python\ndef double(x):\n    return 2 * x\n```\n"
    assert passes(fenced) == 1
    assert passes("def double(x): return x") == 0
    assert passes("import sys\nsys.exit(0)") == 0  # leaving early is no success


@pytest.mark.skipif(
    "--kill-child" not in unit_tests._without_network(), reason="the kernel does not allow it"
)
def test_nothing_that_a_program_starts_outlives_its_unit_tests(tmp_path):
    mark = tmp_path.name + str(os.getpid())
    sleep = f"os.execv(sys.executable, [sys.executable, '-c', 'import time; time.sleep(77)', {mark!r}])"
    program = f"import os, sys\nif os.fork() == 0:\n    os.setsid()\n    {sleep}\n"
    assert metric_of({"unit_tests": "{answer}\n{reference}"}, tmp_path, "pass")(program) == 1
    for _ in range(300):
        if not any(mark.encode() in command for command in _commands()):
            return
        time.sleep(0.1)
    raise AssertionError("a process is left")


def _commands():
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            yield file.read_bytes()
