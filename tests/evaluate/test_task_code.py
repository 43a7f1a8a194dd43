"""A task of lm-eval that names code is refused unless it is trusted."""

import pytest

from escultor.cycle.evaluation_service import evaluate_endpoint
from escultor.errors import DataError
from escultor.evaluate.lm_eval.task_code import refuse_code
from escultor.evaluate.served_model import Endpoint, ServedModel

PLAIN = "task: t\ndataset_path: json\ndoc_to_text: '{{q}}'\n"


def write(folder, text, name="task.yaml"):
    path = folder / name
    path.write_text(text)
    return path


def test_a_task_that_is_data_is_let_pass(tmp_path):
    refuse_code(write(tmp_path, PLAIN))


@pytest.mark.parametrize(
    "line",
    [
        "doc_to_target: !function utils.target",
        "metric_list: [{metric: !function utils.score}]",
        "class: !function task.Mine",
        "custom_dataset: !function utils.rows",
        "dataset_path: pandas",
        "dataset_path: ./script.py",
        "dataset_kwargs: {trust_remote_code: true}",
        "process_docs: !!python/name:os.system",
    ],
)
def test_code_is_refused_wherever_it_is_named(tmp_path, line):
    own = PLAIN.replace("dataset_path: json\n", "") if line.startswith("dataset_path") else PLAIN
    path = write(tmp_path, own + line + "\n")
    with pytest.raises(DataError, match=r"runs code[^\0]*--trust-task"):
        refuse_code(path)
    other = write(tmp_path, "include: task.yaml\ntask: other\n", "other.yaml")
    with pytest.raises(DataError, match="runs code"):
        refuse_code(other)


@pytest.mark.parametrize(
    "text", ["include: task.yaml", "[" * 20_000, "include: missing.yaml", "- \x00"], ids=range(4)
)
def test_what_is_no_task_is_refused(tmp_path, text):
    with pytest.raises(DataError):
        refuse_code(write(tmp_path, text))


def test_python_callers_are_guarded_too(tmp_path):
    path = write(tmp_path, PLAIN + "doc_to_target: !function utils.target\n")
    served = ServedModel(Endpoint("http://127.0.0.1:9/v1"), "m", "m")
    with pytest.raises(DataError, match="runs code"):
        evaluate_endpoint(served, path, None, print)
