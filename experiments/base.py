"""Pre-train escultor-base on the installed documentation and put it into the package.

    python experiments/base.py                  both stages (an hour or more on two cores), pack
    python experiments/base.py --records MODEL  the second stage alone, from a model that had the first, pack

A killed run goes on. Prints one JSON object last.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from importlib.metadata import packages_distributions, version
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace

import torch

from escultor.config import Evaluation, Pretrain, load_config
from escultor.demo.corpus import Corpus, read_corpus
from escultor.demo.documentation import is_held_out
from escultor.demo.suite import trinity_suite
from escultor.evaluate.scoring import evaluate
from escultor.ids import hash_value
from escultor.model.folders import BUILT_IN_PATH, save
from escultor.model.load import load
from escultor.model.loaded import Loaded, count_parameters
from escultor.train.optim import MUON_RATIO
from escultor.train.run_record import TrainingTask
from escultor.train.runs import pretrain, run
from escultor.types import Document

HERE = Path(__file__).parent
OUT = HERE.parent / "out" / "base"
WENT_ON = "It went on where the first stage ended."
BEGAN_AGAIN = (
    "It began from the first stage's weights as they were shipped before, in bfloat16.\n"
    "The packages listed are those that the second stage read; the first was made in another environment."
)
SUITE = Evaluation(items=320)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", help="a model folder with its card.json, in place of the first stage")
    given = parser.parse_args()
    corpus = read_corpus(HERE.parent / ".cache")
    if given.records:
        start, first = load(given.records), json.loads((Path(given.records) / "card.json").read_text())
    else:
        settings, documents = load_config(HERE / "base.yaml").pretrain, corpus.documents()
        pretrain(documents, settings, OUT / "documents", on_step=show)
        start = load(str(OUT / "documents" / "model"))
        first = stage(OUT / "documents", settings, documents)
    settings, records = load_config(HERE / "base_records.yaml").pretrain, corpus.records()
    run(TrainingTask("pretrain", start, records, settings), OUT / "records", on_step=show)
    began = BEGAN_AGAIN if given.records else WENT_ON
    print(json.dumps(pack(first, stage(OUT / "records", settings, records), corpus, began)))


def stage(folder: Path, settings: Pretrain, documents: list[Document]) -> dict[str, object]:
    """What one stage was made of and how its loss fell."""
    steps = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {
        "documents": len(documents),
        "data_hash": hash_value([d.id for d in documents]),
        "tokens": steps[-1]["tokens"],
        "steps": len(steps),
        "final_loss_nats": fmean(s["loss"] for s in steps[-50:]),
        "config": settings.model_dump(),
        "curve": [[s["step"], round(s["loss"], 4)] for s in steps[:: max(1, len(steps) // 100)]],
    }


def show(report) -> None:
    if report.step % 20 == 0:
        left = (report.steps - report.step) * report.seconds / report.step
        print(
            f"step {report.step}/{report.steps}  loss {report.loss:.3f}  "
            f"{report.tokens_per_s:,.0f} tokens/s  {left / 60:.0f} min left",
            flush=True,
        )


def pack(first: dict, second: dict, corpus: Corpus, began: str) -> dict[str, object]:
    """Weights as bfloat16 with the card beside them; figures on held-out packages."""
    save(load(str(OUT / "records" / "model")), BUILT_IN_PATH, torch.bfloat16)
    suite = trinity_suite(corpus.held_out, SUITE)
    kept = load(str(BUILT_IN_PATH))
    scores = evaluate(kept, "escultor-base", suite, SUITE.model_copy(update={"speed_requests": 1}), 0.1)
    bits = scores.scores.metrics["document_bits_per_byte"]
    facts = {
        "parameters": count_parameters(kept.model),
        "held_out_items": len(suite.items),
        "held_out_bits_per_byte": sum(bits) / len(bits),
        "first": {key: first[key] for key in second},
        "second": second,
        "packages": _packages(corpus),
    }
    (BUILT_IN_PATH / "card.json").write_text(json.dumps(facts, indent=1) + "\n")
    (BUILT_IN_PATH / "README.md").write_text(card(facts, kept, began))
    return facts | {"bytes": (BUILT_IN_PATH / "model.safetensors").stat().st_size}


def _packages(corpus: Corpus) -> dict[str, object]:
    """Documented objects by package on the training side, and the versions they were read in."""
    owners = packages_distributions()
    counts = Counter(e.package for e in corpus.entries if not is_held_out(e.package))
    return {
        name: {"objects": n, "version": version(owners[name][0]) if name in owners else "standard library"}
        for name, n in counts.most_common()
    }


def card(facts: dict, kept: Loaded, began: str) -> str:
    """The page beside the weights: `base_card.md` with its figures filled in."""
    config = facts["first"]["config"]
    return (
        (HERE / "base_card.md")
        .read_text()
        .format(
            **facts | config,
            began=began,
            vocabulary_size=len(kept.tokenizer),
            one=_named(facts["first"]),
            two=_named(facts["second"]),
            package_count=len(facts["packages"]),
            largest=", ".join(list(facts["packages"])[:12]),
            date=time.strftime("%Y-%m-%d"),
        )
    )


def _named(stage: dict) -> SimpleNamespace:
    """A stage's facts by attribute, Muon's rate among them."""
    return SimpleNamespace(**stage | stage["config"], muon_rate=MUON_RATIO * stage["config"]["learning_rate"])


if __name__ == "__main__":
    main()
