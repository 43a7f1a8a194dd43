"""What the benchmarks share: data, shapes, runs in processes of their own, ratios, and this machine's peak.

Every timed or weighed run is a child process (`side.py`), so that no run warms or fills another's memory.
Ours runs before and after those it is compared with, A B C A: a machine whose speed drifts shows.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import torch
from machine import processor

from escultor.config import Pretrain
from escultor.data.jsonl import read_jsonl
from escultor.errors import DataError
from escultor.model.folders import save
from escultor.model.load import init_llama
from escultor.model.loaded import Loaded
from escultor.text.tokenizer import train_tokenizer
from escultor.types import Example, Pair

HERE = Path(__file__).parent
DATA = {"dpo": ("gsm8k/pairs.jsonl", "pair"), "sft": ("gsm8k/train.jsonl", "example")}
TOKENIZER_VOCABULARY = 8192
SKIPPED = 2  # first steps, in which kernels are prepared


def _llama(hidden: int, inner: int, layers: int, heads: int, kv_heads: int, vocabulary: int) -> Pretrain:
    return Pretrain(
        hidden_size=hidden,
        intermediate_size=inner,
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        vocabulary=vocabulary,
    )


SHAPES = {
    "8m": _llama(256, 640, 8, 4, 4, 8192),
    "8m-64k": _llama(256, 640, 8, 4, 4, 65536),
    "135m": _llama(576, 1536, 30, 9, 3, 49152),  # SmolLM2-135M's
    "360m": _llama(960, 2560, 32, 15, 5, 49152),  # SmolLM2-360M's
}


@dataclass(frozen=True, slots=True)
class Job:
    """One run of one side. `rival` holds TRL's own settings, by its names."""

    side: str  # ours, trl, padded
    phase: str  # dpo, sft
    model: str  # folder
    data: str  # file
    steps: int
    batch: int = 8
    learning_rate: float = 1e-4
    dtype: str = "float32"
    device: str = "cpu"
    threads: int = 2
    cache: str = ""  # folder where what the reference says is kept; empty: a new one
    rival: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Run:
    """What a run says of itself, by step; memory in MiB, of which `base` holds imports, model and data."""

    seconds: list[float]
    losses: list[float]
    tokens: list[int]  # no padding counted
    base_mib: float
    peak_mib: float
    reference_s: float = 0.0  # what the frozen reference says, where it is asked before the first step
    reference_rows: int = 0  # for which it was asked
    labelled: list[int] = field(default_factory=list)  # tokens
    flops: list[float] = field(default_factory=list)  # the model's, see `model_flops`
    gemm_flops: float = 0.0  # a second, at its best around the run

    @property
    def steady_s(self) -> float:
        return sum(self.seconds[SKIPPED:])

    @property
    def grown_mib(self) -> float:
        return self.peak_mib - self.base_mib


# --- data and models --------------------------------------------------------------------------


def arguments(text: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data",
        type=Path,
        default=Path(os.environ.get("ESCULTOR_DATA", "data")),
        help="folder that holds gsm8k/pairs.jsonl and gsm8k/train.jsonl (default: $ESCULTOR_DATA, or data)",
    )
    parser.add_argument("--steps", type=int, help="of each run; bounds the time")
    parser.add_argument("--batch", type=int, help="rows of a step")
    parser.add_argument("--threads", type=int, default=2)
    return parser


def parsed(parser: argparse.ArgumentParser, defaults: dict[str, dict[str, Any]]) -> argparse.Namespace:
    """The arguments, those not given by the device's defaults; usage and exit code 2 where nothing could be
    measured with them."""
    given = parser.parse_args()
    for name, value in defaults[getattr(given, "device", "cpu")].items():
        if getattr(given, name) is None:
            setattr(given, name, value)
    if given.steps <= SKIPPED:
        parser.error(f"--steps {given.steps}: the first {SKIPPED} are not counted; give more")
    for name, _ in DATA.values():
        if not (given.data / name).is_file():
            parser.error(f"{given.data / name} is not there; give --data FOLDER or set ESCULTOR_DATA")
    return given


def read(data: Path, phase: str, folder: Path) -> Path:
    """The phase's file as the importer takes it: GSM8K calls prompt and completion otherwise."""
    path = data / DATA[phase][0]
    if phase == "dpo":
        return path
    renamed = folder / "train.jsonl"
    with path.open(encoding="utf-8") as lines, renamed.open("w", encoding="utf-8") as out:
        for row in map(json.loads, lines):
            out.write(json.dumps({"prompt": row["question"], "completion": row["answer"]}) + "\n")
    return renamed


def items(job: Job) -> Sequence[Pair | Example]:
    """The first rows of the file, as many as the steps take."""
    found = read_jsonl(Path(job.data), DATA[job.phase][1]).items[: job.steps * job.batch]
    if len(found) < job.steps * job.batch:
        raise DataError(
            f"{job.data} is too short", len(found), f"{job.steps * job.batch} rows", "give fewer --steps"
        )
    return found


def write_models(folder: Path, data: Path, phase: str, shapes: Sequence[str]) -> dict[str, str]:
    """Fresh models of these shapes with a byte-level BPE trained on the data: folder by shape."""
    tokenizer = tokenizer_of(read_jsonl(data, DATA[phase][1]).items)
    folders = {}
    for name in shapes:
        torch.manual_seed(0)
        folders[name] = str(folder / name)
        save(fresh_model(name, tokenizer), folder / name)
    return folders


def tokenizer_of(found: Sequence[Pair | Example]) -> Any:
    """A byte-level BPE trained on what the items say."""
    texts = [m.content for item in found for m in item.prompt]
    texts += [item.response if isinstance(item, Example) else item.chosen for item in found]
    return train_tokenizer(texts, TOKENIZER_VOCABULARY, 1024)


def fresh_model(name: str, tokenizer: Any) -> Loaded:
    """A model of a shape, whose vocabulary may be wider than the tokenizer's."""
    return Loaded(init_llama(SHAPES[name], tokenizer, SHAPES[name].vocabulary), tokenizer)


# --- runs and their ratios --------------------------------------------------------------------


def start(job: Job) -> Run:
    """The run in a process of its own."""
    environment = os.environ | {
        "OMP_NUM_THREADS": str(job.threads),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "TQDM_DISABLE": "1",
    }
    quiet = ("-W", "ignore::FutureWarning")  # TRL calls what transformers has renamed
    command = [sys.executable, *quiet, str(HERE / "side.py"), json.dumps(asdict(job))]
    began = time.perf_counter()
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    run = Run(**json.loads(done.stdout.splitlines()[-1]))
    print(
        f"{job.side:6} {job.phase} {Path(job.model).name:6} {job.dtype:8} "
        f"{statistics.median(run.seconds):8.3f} s a step  {run.grown_mib:7.0f} MiB grown  "
        f"({time.perf_counter() - began:.0f} s in all) {job.rival or ''}",
        flush=True,
    )
    return run


def in_turns(jobs: dict[str, Job]) -> dict[str, list[Run]]:
    """The first of the jobs before and after all others: A B C A."""
    first, *others = jobs
    runs = {name: [start(jobs[name])] for name in (first, *others)}
    runs[first].append(start(jobs[first]))
    return runs


def times_as_fast(ours: Sequence[Run], theirs: Sequence[Run]) -> dict[str, float]:
    """How many times longer the other takes over the same steady steps: whole runs, and step by step.
    `at_peak` is what it would be if our model FLOPs ran as fast as the matrix product at its best."""
    pairs = list(product(ours, theirs))
    runs = [b.steady_s / a.steady_s for a, b in pairs]
    steps = [y / x for a, b in pairs for x, y in zip(a.seconds[SKIPPED:], b.seconds[SKIPPED:], strict=True)]
    limits = [b.steady_s * a.gemm_flops / sum(a.flops[SKIPPED:]) for a, b in pairs]
    return {
        "min": min(runs),
        "max": max(runs),
        "median_of_steps": statistics.median(steps),
        "at_peak": min(limits),
    }


def largest_gap(one: Run, other: Run, steps: int = 20) -> float:
    """Between the losses of the first steps."""
    return max(abs(a - b) for a, b in zip(one.losses[:steps], other.losses[:steps], strict=True))


def peak_figures(float32: Sequence[Run], bfloat16: Run) -> dict[str, float]:
    """Model FLOPs a second in the steady steps, over those of the matrix product at its best, and that."""

    def share(run: Run) -> float:
        return sum(run.flops[SKIPPED:]) / run.steady_s / run.gemm_flops

    return {
        "share_of_gemm_peak_float32": max(share(run) for run in float32),
        "share_of_gemm_peak_bfloat16": share(bfloat16),
        "gemm_gflops_float32": max(run.gemm_flops for run in float32) / 1e9,
        "gemm_gflops_bfloat16": bfloat16.gemm_flops / 1e9,
    }


def memory_grown(runs: dict[str, list[Run]]) -> dict[str, float]:
    """MiB above imports, model and data, at the most."""
    return {name: max(run.grown_mib for run in each) for name, each in runs.items()}


def rows_per_s(job: Job, runs: Sequence[Run]) -> float:
    """Of the best run."""
    return job.batch * (job.steps - SKIPPED) / min(run.steady_s for run in runs)


def tokens_per_s(runs: Sequence[Run]) -> float:
    return max(sum(run.tokens[SKIPPED:]) / run.steady_s for run in runs)


def differences(stamps: Sequence[float]) -> list[float]:
    return [b - a for a, b in pairwise(stamps)]


def report(bench: str, given: argparse.Namespace, figures: dict[str, Any]) -> None:
    """The one JSON object, last."""
    facts = {"bench": bench, "machine": machine(), "date": time.strftime("%Y-%m-%d")}
    settings = {k: str(v) if isinstance(v, Path) else v for k, v in vars(given).items()}
    print(json.dumps(facts | {"settings": settings} | _rounded(figures)))


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    return float(f"{value:.5g}") if isinstance(value, float) else value


def machine() -> str:
    return f"{processor()}; torch {torch.__version__}"


# --- what the machine could do ----------------------------------------------------------------


def gemm_peak(dtype: str, device: str, seconds: float = 1.0) -> float:
    """FLOPs a second of a 1024 x 1024 x 1024 product, at its best within `seconds`."""
    n = 1024
    kind = torch.bfloat16 if dtype == "bfloat16" else torch.float32
    a, b = torch.randn(n, n, device=device).to(kind), torch.randn(n, n, device=device).to(kind)
    repeats = 200 if device == "cuda" else 4
    best, until = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < until:
        began = time.perf_counter()
        for _ in range(repeats):
            a @ b
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, (time.perf_counter() - began) / repeats)
    return 2 * n**3 / best


def model_flops(config: Any, tokens: int, seen: int, labelled: int) -> float:
    """Useful FLOPs of one training step, forward (1) and backward (2), a multiply-add being two:

        6 N tokens  +  12 L D seen  +  6 H V labelled

    N: weights of all layers' matrices; `tokens`: distinct ones, a shared prompt once, no padding;
    `seen`: (query, key) pairs that the causal mask lets see each other, summed over rows, once for
    scores and once for values; D: heads x head width; the head at labelled positions alone. What is
    computed a second time (padding, masked pairs, the head's logits in the backward pass) is not counted.
    """
    hidden, layers = config.hidden_size, config.num_hidden_layers
    width = config.num_attention_heads * config.head_dim
    kv_width = config.num_key_value_heads * config.head_dim
    matrices = layers * hidden * (2 * width + 2 * kv_width + 3 * config.intermediate_size)
    head = 6 * hidden * config.vocab_size * labelled
    return 6.0 * matrices * tokens + 12.0 * layers * width * seen + head
