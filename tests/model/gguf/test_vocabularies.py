"""A text has the same tokens in the tokenizer, in the imported one and in llama.cpp."""

from gguf_models import ask_llama_cpp, byte_level, model, sentencepiece, texts
from tokenizers.pre_tokenizers import Metaspace

from escultor.model.gguf import pre_tokenizers
from escultor.model.gguf.header import read_header
from escultor.model.gguf.vocabulary import read_tokenizer
from escultor.model.gguf.writer import export_gguf_file
from escultor.text.plain import PlainText

NAMES = list({kind: name for name, kind in reversed(pre_tokenizers.BY_NAME.items())}.values())


def _tokenizers():
    made = {name: byte_level(name) for name in NAMES}
    return made | {"sentencepiece": sentencepiece(), "sentencepiece without prefix": sentencepiece(False)}


def test_every_kind_of_vocabulary_gives_the_tokens_that_llama_cpp_gives(tmp_path):
    tokenizers, jobs = _tokenizers(), []
    for number, (name, tokenizer) in enumerate(tokenizers.items()):
        path = tmp_path / f"{number}.gguf"
        export_gguf_file(model("llama", tokenizer), path, "f32", "tiny", (tokenizer.eos_token_id,))
        again, ends = read_tokenizer(read_header(path))
        assert ends[0] == tokenizer.eos_token_id
        assert again.chat_template == tokenizer.chat_template
        assert again.get_added_vocab() == tokenizer.get_added_vocab(), name
        for text in texts():
            for special in (True, False):
                ours = tokenizer.encode(text, add_special_tokens=special)
                assert again.encode(text, add_special_tokens=special) == ours, (name, text)
            assert again.decode(ours) == tokenizer.decode(ours)
        jobs.append(
            {"path": str(path), "texts": texts(), "flags": {"parse_special": True, "add_special": True}}
        )
        jobs.append({"path": str(path), "texts": texts(), "flags": {"parse_special": False}})
    results = ask_llama_cpp(jobs)
    for (name, tokenizer), whole, plain in zip(tokenizers.items(), results[::2], results[1::2], strict=True):
        spelled = PlainText(tokenizer)
        for text, ids, hidden in zip(texts(), whole["tokens"], plain["tokens"], strict=True):
            assert ids == tokenizer.encode(text), (name, text)
            if "think>" not in text and "    " not in text:  # llama.cpp finds these in contents too
                assert hidden == spelled.encode([text])[0], (name, text)


def test_a_vocabulary_that_puts_a_blank_before_the_first_text_alone_fits_in_conversations(tmp_path):
    """As Mistral's since version 3: after a control token `  a` keeps its two blanks, and `a` gets none."""
    template = "{{ bos_token }}{% for m in messages %}{{ '[INST] ' + m['content'] + '[/INST]' }}{% endfor %}"
    tokenizer = sentencepiece(False, template)
    tokenizer.backend_tokenizer.normalizer = None
    metaspace = Metaspace(replacement="▁", prepend_scheme="first", split=False)
    tokenizer.backend_tokenizer.pre_tokenizer = metaspace
    path = tmp_path / "t.gguf"
    made = export_gguf_file(model("llama", tokenizer), path, "f32", "tiny", (tokenizer.eos_token_id,))
    assert "no blank before a text outside" in " ".join(made.notes)
    contents = ["a", " a", "  a", "\n  a b", "the  cat"]
    written = [f"<s>{text}</s>{text}" for text in contents]
    again, _ = read_tokenizer(read_header(path))
    ours = [tokenizer.encode(text, add_special_tokens=False) for text in written]
    assert [again.encode(text, add_special_tokens=False) for text in written] == ours
    flags = {"parse_special": True, "add_special": False}
    (found,) = ask_llama_cpp([{"path": str(path), "texts": written, "flags": flags}])
    assert found["tokens"] == ours
