"""Pre-train escultor-base on the installed documentation and put it into the package.

    python experiments/base.py             train (an hour or more on two cores; a killed run goes on), pack
    python experiments/base.py --pack DIR  pack a run folder that is done

Prints one JSON object last.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from importlib.metadata import packages_distributions, version
from pathlib import Path

import torch

from escultor.config import Evaluation, Pretrain, load_config
from escultor.cycle.corpus import Corpus, read_corpus
from escultor.data.sources.documentation import is_held_out
from escultor.evaluate.suites import evaluate_trinity, trinity_suite
from escultor.ids import hash_value
from escultor.model.load import BUILT_IN_PATH, Loaded, count_parameters, load, save
from escultor.train.runs import pretrain

HERE = Path(__file__).parent
OUT = HERE.parent / "out" / "base"
SUITE = Evaluation(items=320)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pack", type=Path, help="a run folder that is done")
    given = parser.parse_args()
    settings = load_config(HERE / "base.yaml").pretrain
    corpus = read_corpus(HERE.parent / ".cache")
    out = given.pack or OUT
    if given.pack is None:
        pretrain(corpus.documents(), settings, out, show)
    print(json.dumps(pack(out, settings, corpus)))


def show(report) -> None:
    if report.step % 20 == 0:
        left = (report.steps - report.step) * report.seconds / report.step
        print(
            f"step {report.step}/{report.steps}  loss {report.loss:.3f}  "
            f"{report.tokens_per_s:,.0f} tokens/s  {left / 60:.0f} min left",
            flush=True,
        )


def pack(run: Path, settings: Pretrain, corpus: Corpus) -> dict[str, object]:
    """Weights as bfloat16 with the card beside them; figures on held-out packages."""
    loaded = load(str(run / "model"))
    save(loaded, BUILT_IN_PATH, torch.bfloat16)
    steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    suite = trinity_suite(corpus.held_out, SUITE)
    kept = load(str(BUILT_IN_PATH))
    scores = evaluate_trinity(
        kept, "escultor-base", suite, SUITE.model_copy(update={"speed_requests": 1}), 0.1
    )
    bits = scores.scores.metrics["document_bits_per_byte"]
    documents = corpus.documents()
    facts = {
        "parameters": count_parameters(kept.model),
        "documents": len(documents),
        "data_hash": hash_value([d.id for d in documents]),
        "tokens": steps[-1]["tokens"],
        "steps": len(steps),
        "final_loss_nats": sum(s["loss"] for s in steps[-50:]) / 50,
        "held_out_items": len(suite.items),
        "held_out_bits_per_byte": sum(bits) / len(bits),
        "config": settings.model_dump(),
        "curve": [[s["step"], round(s["loss"], 4)] for s in steps[:: max(1, len(steps) // 100)]],
        "packages": _packages(corpus),
    }
    (BUILT_IN_PATH / "card.json").write_text(json.dumps(facts, indent=1) + "\n")
    (BUILT_IN_PATH / "README.md").write_text(card(facts, kept))
    return facts | {"bytes": (BUILT_IN_PATH / "model.safetensors").stat().st_size}


def _packages(corpus: Corpus) -> dict[str, object]:
    """Documented objects by package on the training side, and the versions they were read in."""
    owners = packages_distributions()
    counts = Counter(e.package for e in corpus.entries if not is_held_out(e.package))
    return {
        name: {"objects": n, "version": version(owners[name][0]) if name in owners else "standard library"}
        for name, n in counts.most_common()
    }


def card(facts: dict, kept: Loaded) -> str:
    """The page beside the weights: `base_card.md` with its figures filled in."""
    config = facts["config"]
    template = (HERE / "base_card.md").read_text()
    return template.format(
        **facts | config,
        vocabulary_size=len(kept.tokenizer),
        muon_rate=5 * config["learning_rate"],
        package_count=len(facts["packages"]),
        largest=", ".join(list(facts["packages"])[:12]),
        date=time.strftime("%Y-%m-%d"),
    )


if __name__ == "__main__":
    main()
