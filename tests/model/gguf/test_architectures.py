"""Models written as GGUF and read again are the same models; llama.cpp and transformers compute the
same."""

import pytest
import torch
from gguf_models import KINDS, ask_llama_cpp, model
from tiny import same_weights

from escultor.model.gguf.reader import import_gguf_file
from escultor.model.gguf.writer import export_gguf_file
from escultor.model.load import load

IDS = [5, 40, 77, 130, 9, 300, 61, 18, 200, 33, 7, 90]


def exported(loaded, path, quant="f32"):
    return export_gguf_file(loaded, path, quant, "tiny", (loaded.tokenizer.eos_token_id,))


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_comes_back_bit_for_bit(tmp_path, kind):
    loaded = model(kind)
    exported(loaded, tmp_path / "x.gguf")
    assert import_gguf_file(tmp_path / "x.gguf", tmp_path / "x").precision == "float32"
    again = load(str(tmp_path / "x"))
    if KINDS[kind].get("model_type", kind).startswith("gemma"):  # stored as 1 + w, in float32
        ours, theirs = loaded.model.state_dict(), again.model.state_dict()
        assert all(torch.allclose(ours[k], theirs[k], atol=1e-6) for k in ours)
    else:
        assert same_weights(loaded.model, again.model)
    ids = torch.tensor([IDS])
    with torch.no_grad():
        assert torch.allclose(loaded.model(ids).logits, again.model(ids).logits, atol=1e-4)


def test_llama_cpp_computes_what_transformers_computes(tmp_path):
    jobs, expected = [], {}
    for kind in KINDS:
        loaded, path = model(kind), tmp_path / f"{kind}.gguf"
        exported(loaded, path)
        with torch.no_grad():
            expected[kind] = torch.log_softmax(loaded.model(torch.tensor([IDS])).logits[0, -1].double(), -1)
        jobs.append({"path": str(path), "ids": IDS, "forced": loaded.tokenizer.encode("a")[0]})
    for kind, found in zip(KINDS, ask_llama_cpp(jobs), strict=True):
        logps = {int(id): logp for id, logp in found["logps"].items()}
        assert len(logps) > 300, kind
        off = max(abs(expected[kind][id].item() - logp) for id, logp in logps.items())
        assert off < (5e-3 if "gemma" in kind else 1e-4), (kind, off)  # its GELU is read from a table
