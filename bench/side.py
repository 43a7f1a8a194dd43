"""One run of one side, in this process alone: the last line is a `Run` as JSON. Started by the benchmarks."""

from __future__ import annotations

import gc
import json
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from common import Job, Run, differences, gemm_peak, items, model_flops
from torch.nn.functional import cross_entropy

from escultor.batching.rows import NllRow, PairRow
from escultor.config import Dpo, Sft, Training
from escultor.errors import DataError
from escultor.model.forward import precision
from escultor.model.load import load
from escultor.model.loaded import Loaded
from escultor.train.loop import train
from escultor.train.methods import METHODS, Frozen
from escultor.train.optim import Optimizers, rate


class Memory:
    """Resident memory in MiB: now, and the most since this was made (of the device, where there is one)."""

    def __init__(self, device: str):
        gc.collect()
        self.device = device
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
            self.base = torch.cuda.memory_allocated() / 2**20
        else:
            with suppress(OSError):  # elsewhere the peak is that of the whole process
                Path("/proc/self/clear_refs").write_text("5")
            self.base = self._status("VmRSS")

    def peak(self) -> float:
        if self.device == "cuda":
            return torch.cuda.max_memory_allocated() / 2**20
        return self._status("VmHWM")

    @staticmethod
    def _status(name: str) -> float:
        path = Path("/proc/self/status")
        if path.is_file():
            line = next(line for line in path.read_text().splitlines() if line.startswith(name))
            return int(line.split()[1]) / 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def settings_of(job: Job) -> Training:
    """The same for both sides; see `rival.py` for TRL's names."""
    kind = Dpo if job.phase == "dpo" else Sft
    return kind(
        learning_rate=job.learning_rate,
        epochs=1,
        batch_size=job.batch,
        warmup_steps=0,
        schedule="linear",
        weight_decay=0.01,
        max_grad_norm=1.0,
        shuffle=False,
        dtype=job.dtype,  # type: ignore[arg-type]
    )


def rows_of(job: Job, loaded: Loaded, found: Sequence[Any], settings: Training) -> Sequence[Any]:
    """All of the items as rows; one left out would give the sides different work."""
    counts: Counter[str] = Counter()
    rows = METHODS[job.phase].rows(found, loaded.chat, settings.max_length, counts, settings)
    if len(rows) != len(found):
        raise DataError("rows were left out", dict(counts), "none", "raise max_length")
    return rows


def ours(job: Job, loaded: Loaded, rows: Sequence[Any], settings: Training, memory: Memory) -> Run:
    """The project's own path: the phase's stream and objective, the reference on disk, the loop."""
    method, counts, world = METHODS[job.phase], Counter(), _world(job.device)
    before = gemm_peak(job.dtype, job.device)
    with ExitStack() as stack:
        cache = job.cache or stack.enter_context(tempfile.TemporaryDirectory())
        began = time.perf_counter()
        stream = method.stream(rows, Frozen(loaded.model, Path(cache), counts, **world), settings)
        reference_s = time.perf_counter() - began
        stamps, losses, tokens = [time.perf_counter()], [], [0]

        def on_step(report: Any) -> None:
            stamps.append(time.perf_counter())
            losses.append(report.loss)
            tokens.append(report.tokens)

        train(loaded.model, stream, method.objective(settings), settings, on_step=on_step, **world)
    work = [_work(loaded, rows[at : at + job.batch]) for at in range(0, len(rows), job.batch)]
    return Run(
        seconds=differences(stamps),
        losses=losses,
        tokens=[int(n) for n in differences(tokens)],
        base_mib=memory.base,
        peak_mib=memory.peak(),
        reference_s=reference_s if job.phase == "dpo" else 0.0,
        reference_rows=counts["reference rows computed"],
        labelled=[labelled for _, labelled in work],
        flops=[flops for flops, _ in work],
        gemm_flops=max(before, gemm_peak(job.dtype, job.device)),
    )


def _world(device: str) -> dict[str, Any]:
    """What sends the loop elsewhere than to the processor."""
    if device == "cpu":
        return {}
    from escultor.train.distributed import World

    return {"world": World(device=torch.device(device))}


def _work(loaded: Loaded, rows: Sequence[NllRow | PairRow]) -> tuple[float, int]:
    """A step's `model_flops` and labelled tokens; a branch's token sees the prompt and the branch up to
    itself."""

    def triangle(n: int) -> int:
        return n * (n + 1) // 2

    seen = labelled = 0
    for row in rows:
        if isinstance(row, PairRow):
            branches = (len(row.chosen), len(row.rejected))
            seen += triangle(len(row.prompt)) + sum(len(row.prompt) * n + triangle(n) for n in branches)
            labelled += sum(branches)
        else:
            seen += triangle(row.length)
            labelled += row.length - row.start
    return model_flops(loaded.model.config, sum(row.length for row in rows), seen, labelled), labelled


def padded(job: Job, loaded: Loaded, rows: Sequence[NllRow], settings: Training, memory: Memory) -> Run:
    """SFT written the obvious way: padded batches, all logits, the library's cross-entropy."""
    net, optimizer = loaded.model.train(), Optimizers(loaded.model, settings)
    stamps, losses, tokens = [time.perf_counter()], [], []
    for step in range(job.steps):
        batch = rows[step * job.batch : (step + 1) * job.batch]
        width = max(row.length for row in batch)
        ids = torch.zeros(len(batch), width, dtype=torch.long)
        labels, mask = torch.full_like(ids, -100), torch.zeros_like(ids)
        for i, row in enumerate(batch):
            own = torch.from_numpy(row.ids).long()
            ids[i, : row.length], mask[i, : row.length] = own, 1
            labels[i, row.start : row.length] = own[row.start :]
        ids, labels, mask = (each.to(job.device) for each in (ids, labels, mask))
        with precision(job.dtype, job.device):
            logits = net(input_ids=ids, attention_mask=mask, use_cache=False).logits
            loss = cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), settings.max_grad_norm)
        optimizer.step(rate(step, job.steps, settings))
        losses.append(loss.item())
        tokens.append(int(mask.sum()))
        stamps.append(time.perf_counter())
    return Run(differences(stamps), losses, tokens, memory.base, memory.peak())


def main() -> None:
    job = Job(**json.loads(sys.argv[1]))
    torch.set_num_threads(job.threads)
    if job.side == "trl":
        from rival import trl as side
    else:
        side = {"ours": ours, "padded": padded}[job.side]
    loaded = load(job.model)
    loaded.model.to(job.device)  # type: ignore[arg-type]
    for weight in loaded.model.parameters():
        weight.sum().item()  # a file that is mapped counts as memory once it is read
    settings = settings_of(job)
    rows = rows_of(job, loaded, items(job), settings)
    run = side(job, loaded, rows, settings, Memory(job.device))
    print(json.dumps(asdict(run)))


if __name__ == "__main__":
    main()
