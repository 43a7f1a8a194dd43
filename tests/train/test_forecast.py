"""The estimate before a run is that of the device it will run on."""

import pytest
import tiny
import torch

from escultor.config import Distillation
from escultor.model import forward
from escultor.train import forecast
from escultor.train.methods import METHODS

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def bfloat16_is_fast_on_a_gpu_alone(monkeypatch):
    monkeypatch.setattr(forward, "fast_bfloat16", lambda device: device == "cuda")
    monkeypatch.setattr(forecast, "matrix_speed", lambda model, dtype, device: 1e9)


def estimated(device, **changes):
    loaded, settings = tiny.llama(), tiny.settings(**changes)
    rows = tiny.nll_rows(40)
    return forecast.run_cost(METHODS["sft"], rows, loaded.model, settings, device=device)


def test_products_are_in_what_the_device_multiplies_fast(bfloat16_is_fast_on_a_gpu_alone):
    auto = {device: estimated(device, dtype="auto").activations for device in (CPU, GPU)}
    assert (
        auto[CPU]
        == estimated(CPU, dtype="float32").activations
        == estimated(GPU, dtype="float32").activations
    )
    assert auto[GPU] == estimated(GPU, dtype="bfloat16").activations
    assert auto[GPU] != auto[CPU]


def test_a_dense_mask_counts_where_the_device_needs_one(monkeypatch):
    monkeypatch.setattr(
        forecast, "choose_attention", lambda model, device, asked: "dense" if device == GPU else "flex"
    )
    model, rows = tiny.llama().model, tiny.nll_rows(40)
    masked = [
        forecast.work(METHODS["sft"], rows, model, tiny.settings(), device=device).masked
        for device in (CPU, GPU)
    ]
    assert masked == [False, True]


def test_what_frozen_models_compute_follows_from_the_row_of_the_table():
    student, teacher = tiny.llama().model, tiny.llama(seed=1).model
    rows = tiny.nll_rows(40)
    tokens = sum(row.length for row in rows)
    once = forecast.forward_flops(student, tokens)
    for phase, epochs, expected in (("sft", 3, 0.0), ("dpo", 3, once), ("kto", 1, once)):
        found = forecast.work(METHODS[phase], rows, student, tiny.settings(epochs=epochs))
        assert found.frozen_flops == expected
    own = Distillation(epochs=3, max_length=64)
    assert forecast.work(METHODS["distill"], rows, student, own, teacher).frozen_flops == 3 * once
