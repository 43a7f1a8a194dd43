"""Model folders that lie: each is refused in one plain error, before a library believes it."""

import json
import os
import shutil
import struct

import pytest
import tiny
from safetensors.torch import load_file, save_file

from escultor.errors import ModelError
from escultor.model.folders import save
from escultor.model.load import load

WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "model"
    save(tiny.llama(), folder)
    return folder


def config(**changes):
    return edited("config.json", lambda content: content.update(changes))


def tokenizer(change):
    return edited("tokenizer.json", change)


def edited(name, change):
    def build(folder):
        path = folder / name
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return build


def header(change):
    """Change the header of the weights, given with the number of bytes that it describes."""

    def build(folder):
        data = (folder / WEIGHTS).read_bytes()
        length = struct.unpack("<Q", data[:8])[0]
        content, body = json.loads(data[8 : 8 + length]), data[8 + length :]
        change(content, len(body))
        text = json.dumps(content).encode()
        (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(text)) + text + body)

    return build


def first(content):
    return next(info for name, info in content.items() if name != "__metadata__")


def overlap(content, _):
    by_shape = {}
    for name, info in content.items():
        if name != "__metadata__":
            by_shape.setdefault(str(info["shape"]), []).append(info)
    one, other = next(alike for alike in by_shape.values() if len(alike) > 1)[:2]
    one["data_offsets"] = other["data_offsets"]


def tensor(shape, begin, end, dtype="F32"):
    def add(content, size):
        content["more"] = {"dtype": dtype, "shape": shape, "data_offsets": [size + begin, size + end]}

    return header(add)


def many_tensors(content, size):
    empty = {"dtype": "F32", "shape": [0], "data_offsets": [size, size]}
    content.update({f"t{i}": empty for i in range(140_000)})


def claims(size, length):
    """A file of mostly nothing whose header is said to be as long."""

    def build(folder):
        (folder / WEIGHTS).write_bytes(struct.pack("<Q", length) + b"{")
        os.truncate(folder / WEIGHTS, size)

    return build


def not_a_number(folder):
    tensors = load_file(folder / WEIGHTS)
    next(iter(tensors.values())).view(-1)[0] = float("nan")
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def special(name, kind):
    def build(folder):
        path = folder / name
        path.unlink(missing_ok=True)
        if kind == "pipe":
            os.mkfifo(path)
        else:
            path.symlink_to(path if kind == "itself" else kind)

    return build


def text(name, content):
    return lambda folder: (folder / name).write_text(content)


def index(*names):
    return text("model.safetensors.index.json", json.dumps({"weight_map": dict(enumerate(names))}))


def replacing(times):
    step = {"type": "Replace", "pattern": {"String": "e"}, "content": "eeeeeeee"}
    return {"type": "Sequence", "normalizers": [step] * times}


def split(pattern):
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return tokenizer(lambda content: content.update(pre_tokenizer=split))


def added(count):
    kind = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    tokens = [{"id": 9000 + i, "content": f"<x{i}>", "special": True} | kind for i in range(count)]
    return tokenizer(lambda content: content["added_tokens"].extend(tokens))


PADDING = {"direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0, "pad_token": "x"}
PADDING["strategy"] = {"Fixed": 10**10}
HOSTILE = {
    "tensors on one place": header(overlap),
    "a shape of 10^9": header(lambda content, _: first(content).update(shape=[10**9])),
    "a shape of 2^63": header(lambda content, _: first(content).update(shape=[2**62, 2])),
    "a negative shape": header(lambda content, _: first(content).update(shape=[-1])),
    "100,000 dimensions": header(lambda content, _: first(content).update(shape=[1] * 100_000)),
    "a tensor beyond the file": tensor([2], 0, 8),
    "an offset of 2^62": tensor([2**60], 0, 2**62),
    "a gap between tensors": tensor([0], 100, 100),
    "an unknown dtype": tensor([1], 0, 1, "U9"),
    "140,000 tensors": header(many_tensors),
    "a header of 99 MB": claims(10**8, 99 * 10**6),
    "a header of 100 GB": claims(10**11, 10**11 - 8),
    "a header of 2^63": claims(100, 2**63),
    "seven bytes": lambda folder: (folder / WEIGHTS).write_bytes(b"1234567"),
    "weights that are not finite": not_a_number,
    "weights in a pipe": special(WEIGHTS, "pipe"),
    "weights of a device": special(WEIGHTS, "/dev/zero"),
    "weights that link to themselves": special(WEIGHTS, "itself"),
    "weights of the system": special(WEIGHTS, "/etc/passwd"),
    "more weights in a pipe": special("z.safetensors", "pipe"),
    "more weights of a device": special("z.safetensors", "/dev/zero"),
    "a configuration in a pipe": special("config.json", "pipe"),
    "a tokenizer in a pipe": special("tokenizer.json", "pipe"),
    "a tokenizer of a device": special("tokenizer.json", "/dev/zero"),
    "tokenizer settings in a pipe": special("tokenizer_config.json", "pipe"),
    "generation settings of a device": special("generation_config.json", "/dev/zero"),
    "a template in a pipe": special("chat_template.jinja", "pipe"),
    "an index in a pipe": special("model.safetensors.index.json", "pipe"),
    "an index to another folder": index("../x.safetensors"),
    "an index to pickles": index("pytorch_model.bin"),
    "an index to nothing": index("absent.safetensors"),
    "a million layers": config(num_hidden_layers=10**6),
    "no layers": config(num_hidden_layers=0),
    "negative layers": config(num_hidden_layers=-1),
    "a width of 10^7": config(hidden_size=10**7),
    "a negative width": config(hidden_size=-32),
    "a width as text": config(hidden_size="32"),
    "a width of nothing": config(hidden_size=None),
    "10^9 tokens": config(vocab_size=10**9),
    "more parameters than weights": config(intermediate_size=1 << 20),
    "10^6 heads": config(num_attention_heads=10**6, num_key_value_heads=10**6),
    "no heads": config(num_attention_heads=0),
    "no key-value heads": config(num_key_value_heads=0),
    "a negative context": config(max_position_embeddings=-1),
    "10^9 labels": config(num_labels=10**9),
    "10^7 experts": config(model_type="mixtral", num_local_experts=10**7),
    "an epsilon that is no number": config(rms_norm_eps=float("nan")),
    "a list of layers": config(num_hidden_layers=[2]),
    "a million kinds of layers": config(layer_types=["x"] * 500_000),
    "brackets": text("config.json", "[" * 100_000),
    "a long configuration": text("config.json", json.dumps({"model_type": "llama", "x": "a" * (5 << 20)})),
    "a pattern that backtracks": split(r"(\w+\s?)+\!"),
    "a pattern that is none": split("((("),
    "70,000 added tokens": added(70_000),
    "8^12 characters for one": tokenizer(lambda content: content.update(normalizer=replacing(12))),
    "a token with an id of 2^40": tokenizer(lambda content: content["model"]["vocab"].update(zzz=2**40)),
    "padding of 10^10": tokenizer(lambda content: content.update(padding=PADDING)),
    "a tokenizer of brackets": text("tokenizer.json", "[" * 200_000),
    "an empty tokenizer": text("tokenizer.json", "{}"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_folder_that_lies_is_refused_in_one_error(saved, tmp_path, name):
    folder = shutil.copytree(saved, tmp_path / "model")
    HOSTILE[name](folder)
    with pytest.raises(ModelError) as caught:
        load(str(folder))
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 1000
    assert message.count("remedy:") == 1


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_code_that_a_folder_brings_is_not_run(saved, tmp_path, file):
    folder = shutil.copytree(saved, tmp_path / "model")
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    names = {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M", "AutoTokenizer": ["evil.T", None]}
    edited(file, lambda content: content.update(auto_map=names))(folder)
    load(str(folder))
    assert not (tmp_path / "ran").exists()
