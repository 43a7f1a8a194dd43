"""A student is a part of its teacher: some layers, some neurons, the same vocabulary."""

import pytest
import torch
from tiny import llama

from escultor.errors import ModelError
from escultor.model.folders import save
from escultor.model.load import load
from escultor.model.loaded import count_parameters
from escultor.model.student import cut_student


def test_all_layers_and_neurons_make_the_teacher_again():
    teacher = llama()
    student = cut_student(teacher, (0, 1), 64)
    ids = torch.tensor([[7, 8, 9, 10]])
    with torch.no_grad():
        assert torch.equal(teacher.model(ids).logits, student.model(ids).logits)


def test_a_student_is_smaller_and_leaves_its_teacher_as_it_was(tmp_path):
    teacher = llama()
    before = {k: v.clone() for k, v in teacher.model.state_dict().items()}
    student = cut_student(teacher, (1,), 16)
    assert count_parameters(student.model) < count_parameters(teacher.model)
    assert all(torch.equal(v, before[k]) for k, v in teacher.model.state_dict().items())
    save(student, tmp_path / "student")
    again = load(str(tmp_path / "student"))
    ids = torch.tensor([[7, 8, 9, 10]])
    with torch.no_grad():
        # With a cache too: the layers must know their new numbers.
        assert torch.equal(again.model(ids, use_cache=True).logits, student.model(ids, use_cache=True).logits)


def test_the_neurons_kept_are_those_of_largest_norm():
    teacher = llama()
    mlp = teacher.model.model.layers[0].mlp
    with torch.no_grad():
        mlp.down_proj.weight[:, 3] *= 100
    kept = cut_student(teacher, (0,), 1).model.model.layers[0].mlp
    assert torch.equal(kept.down_proj.weight[:, 0], mlp.down_proj.weight[:, 3])
    assert torch.equal(kept.gate_proj.weight[0], mlp.gate_proj.weight[3])


@pytest.mark.parametrize(("layers", "size"), [((2,), None), ((0, 0), None), ((0,), 65)])
def test_what_the_teacher_does_not_have_is_refused(layers, size):
    with pytest.raises(ModelError):
        cut_student(llama(), layers, size)
