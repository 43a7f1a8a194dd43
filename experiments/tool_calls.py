"""Learning from tool traffic: what SFT and DPO on a few calls do to the share of right calls, held out.

    OMP_NUM_THREADS=1 nice -n 10 python experiments/tool_calls.py [--rows 300] [--steps 40] [--seeds 2]

escultor-base gets a template that shows tools, and learns from requests with the call that answers each to
call one of four tools. Held out are other values (cities, rooms, numbers, goods) in the same requests. SFT is
also stopped early; DPO goes on from there, on pairs of the right call over a wrong one among two answers that
this model itself sampled; its settings were chosen in trials on requests of this kind, so its gain is
optimistic. The controls are the same rows with calls shuffled among the requests, and the same pairs with the
sides drawn by a coin. Prints one JSON object last: shares of answers with the right call (`tool_call`), the
right tool (`tool_name`), and arguments by the schema (`tool_schema`), and what sets pairs of arms apart in
`tool_call`, with 95 % intervals clustered by the held-out value. Two seeds at a time, each about two and a
half minutes of one core.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from escultor.config import Dpo, Sft
from escultor.config.training import Training
from escultor.model.generate import generate
from escultor.model.load import load
from escultor.model.loaded import Loaded
from escultor.skills.table import METRICS, ModelOutput
from escultor.stats.means import bootstrap_mean
from escultor.text.tool_calls import calls_in
from escultor.train.run_record import TrainingTask
from escultor.train.runs import run
from escultor.types import Example, Message, Origin, Pair, Role, Sampling, SuiteItem, ToolCall
from escultor.types.training import AnswerExtras

Measures = dict[str, list[float]]
MEASURED = ("tool_call", "tool_name", "tool_schema")
BATCH = 16
ANSWER_TOKENS = 64  # a call takes about 36; one that is cut off is no call
COMPARED = (("sft", "base"), ("sft", "sft_shuffled"), ("dpo", "sft_early"), ("dpo", "dpo_drawn_sides"))
ORIGIN = Origin(("experiment",), "experiment/1")
TEMPLATE = (
    "{{ bos_token }}{% if tools %}{{ '<|system|>' }}{% for tool in tools %}"
    "{{ tool.function.name }}{% for key in (tool.function.parameters or {}).properties or {} %}"
    "{{ ' ' + key }}{% endfor %}{{ '\n' }}{% endfor %}{{ '<|end|>' }}"
    "{% endif %}{% for message in messages %}{{ '<|' + message.role + '|>' + (message.content or '') }}"
    "{% for call in message.tool_calls or [] %}{{ '<tool_call>' + {'name': call.function.name, 'arguments': "
    "call.function.arguments} | tojson + '</tool_call>' }}{% endfor %}{{ '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


@dataclass(frozen=True)
class Tool:
    """A tool with one argument, how people ask for it, and the values that they name."""

    name: str
    argument: str
    asks: tuple[str, ...]
    values: tuple[Any, ...]

    def definition(self) -> dict[str, Any]:
        kind = "integer" if isinstance(self.values[0], int) else "string"
        schema = {
            "type": "object",
            "properties": {self.argument: {"type": kind}},
            "required": [self.argument],
        }
        return {"type": "function", "function": {"name": self.name, "parameters": schema}}


CITIES = (
    "Paris Lima Rome Oslo Cairo Madrid Berlin Tokyo Delhi Sydney Boston Dublin Vienna Athens London "
    "Milan Seoul Quito Lagos Accra Kiev Riga Minsk Sofia Bern Bonn Dallas Denver Miami Austin Geneva "
    "Naples Prague Warsaw Moscow Lisbon Porto Havana Nairobi Toronto"
)
ROOMS = (
    "kitchen hall office garden bath cellar garage attic library studio pantry lobby bedroom nursery "
    "porch stable workshop corridor terrace chapel"
)
GOODS = (
    "milk bread rice salt paper tea apples butter eggs sugar coffee soap honey flour pepper cheese "
    "onions garlic lemons candles matches batteries potatoes carrots beans pasta oil vinegar yogurt "
    "cereal juice water tomatoes grapes cherries peaches mustard ketchup jam nuts"
)
TOOLS = (
    Tool(
        "get_weather",
        "city",
        ("What is the weather in {}?", "Will it rain in {} today?", "How warm is it in {}?"),
        tuple(CITIES.split()),
    ),
    Tool(
        "set_timer",
        "minutes",
        ("Set a timer for {} minutes.", "Wake me in {} minutes.", "Tell me when {} minutes are over."),
        tuple(range(10, 60)),
    ),
    Tool(
        "turn_on",
        "room",
        ("Turn on the light in the {}.", "It is dark in the {}.", "Light in the {}, please."),
        tuple(ROOMS.split()),
    ),
    Tool(
        "buy",
        "item",
        ("Put {} on the list.", "We have no {} left.", "Do not forget to buy {}."),
        tuple(GOODS.split()),
    ),
)


def values_of(tool: Tool, held_out: bool) -> list[Any]:
    """Every fourth value of a tool is held out."""
    return [value for at, value in enumerate(tool.values) if (at % 4 == 3) == held_out]


def request(id: str, tool: Tool, ask: str, value: Any, draw: random.Random) -> Example:
    """A request with its call; the tools are offered in any order."""
    offered = [each.definition() for each in draw.sample(TOOLS, len(TOOLS))]
    asked = (Message(Role.USER, ask.format(value)),)
    extras = extras_of(tool.name, json.dumps({tool.argument: value}))
    return Example(id, asked, "", ORIGIN, tools=json.dumps(offered), extras=extras)


def requests(count: int, seed: int) -> list[Example]:
    """Requests to learn from."""
    draw, made = random.Random(seed), []
    for at in range(count):
        tool = TOOLS[at % len(TOOLS)]
        value = draw.choice(values_of(tool, False))
        made.append(request(f"{seed}-{at}", tool, draw.choice(tool.asks), value, draw))
    return made


def held_out_requests(seed: int) -> list[Example]:
    """Every way to ask for every value that is held out."""
    draw = random.Random(seed)
    cases = [(tool, ask, value) for tool in TOOLS for ask in tool.asks for value in values_of(tool, True)]
    return [request(f"held-out-{at}", *case, draw) for at, case in enumerate(cases)]


def extras_of(name: str, arguments: str) -> AnswerExtras:
    return AnswerExtras(tool_calls=(ToolCall("call", name, arguments),))


def shuffled(rows: Sequence[Example], seed: int) -> list[Example]:
    """The same requests and the same calls, put together by chance."""
    order = list(range(len(rows)))
    random.Random(seed).shuffle(order)
    return [replace(row, extras=rows[at].extras) for row, at in zip(rows, order, strict=True)]


def answered(loaded: Loaded, rows: Sequence[Example], **sampling: Any) -> list[str]:
    """Greedy answers, or sampled ones."""
    prompts = [loaded.chat.prompt(row.prompt, row.tools) for row in rows]
    how = Sampling(max_new_tokens=ANSWER_TOKENS, **sampling)
    return [each.text for each in generate(loaded, prompts, how)]


def measured(loaded: Loaded, rows: Sequence[Example]) -> Measures:
    """Each metric of each request."""
    scores: Measures = {name: [] for name in MEASURED}
    for row, text in zip(rows, answered(loaded, rows), strict=True):
        (call,) = row.extras.tool_calls
        right = json.dumps({"name": call.name, "arguments": json.loads(call.arguments)})
        item = SuiteItem(row.id, row.prompt, row.id, (right,), tools=row.tools)
        for name in MEASURED:
            scores[name].append(METRICS[name].score(ModelOutput(text), item))
    return scores


def pairs(loaded: Loaded, rows: Sequence[Example]) -> list[Pair]:
    """The right call over the first wrong answer that the model samples, where there is one."""
    made, paired = [], set()
    tries = [answered(loaded, rows, temperature=1.0, seed=seed) for seed in (1, 2)]
    for row, text in [pair for texts in tries for pair in zip(rows, texts, strict=True)]:
        (call,) = row.extras.tool_calls
        calls = calls_in(text, row.tools)
        if row.id in paired or calls == [(call.name, call.arguments)]:
            continue
        paired.add(row.id)
        wrong = AnswerExtras(tool_calls=tuple(ToolCall("call", *each) for each in calls))
        rejected = "" if calls else text or "?"
        made.append(
            Pair(
                row.id,
                row.prompt,
                "",
                rejected,
                ORIGIN,
                tools=row.tools,
                chosen_extras=row.extras,
                rejected_extras=wrong,
            )
        )
    return made


def with_drawn_sides(found: Sequence[Pair], seed: int) -> list[Pair]:
    """The same pairs, of which a coin says which side is the better one."""
    draw = random.Random(seed)
    swap = {
        "chosen": "rejected",
        "rejected": "chosen",
        "chosen_extras": "rejected_extras",
        "rejected_extras": "chosen_extras",
    }
    return [
        replace(pair, **{to: getattr(pair, of) for to, of in swap.items()}) if draw.random() < 0.5 else pair
        for pair in found
    ]


def trained(phase: str, start: Loaded, rows: Sequence[Any], settings: Training, folder: Path) -> Loaded:
    """The model that a run gives; its folder has to outlive it."""
    run(TrainingTask(phase, start, rows, settings), folder)  # type: ignore[arg-type]
    return load(str(folder / "model"))


def base() -> Loaded:
    loaded = load("escultor-base")
    loaded.tokenizer.chat_template = TEMPLATE
    return Loaded(loaded.model, loaded.tokenizer)


def one_seed(given: argparse.Namespace, seed: int) -> dict[str, Measures]:
    """The measures of every arm."""
    with tempfile.TemporaryDirectory() as name:
        return all_arms(given, seed, Path(name))


def all_arms(given: argparse.Namespace, seed: int, folder: Path) -> dict[str, Measures]:
    rows, held_out = requests(given.rows, seed), held_out_requests(seed)

    def sft(arm: str, items: Sequence[Example], steps: int) -> Loaded:
        settings = Sft(
            learning_rate=1e-3, epochs=1000, max_steps=steps, batch_size=BATCH, warmup_steps=5, seed=seed
        )
        return trained("sft", base(), items, settings, folder / arm)

    early = sft("early", rows, 2 * given.steps // 5)
    found = pairs(early, rows)

    def dpo(arm: str, items: Sequence[Pair]) -> Loaded:
        settings = Dpo(
            learning_rate=1e-5,
            epochs=1000,
            max_steps=3 * given.steps // 5,
            batch_size=BATCH,
            warmup_steps=3,
            loss="sigmoid",
            beta=1.0,  # at 0.1 both sides lose their probability, and the model its calls
            nll_weight=1.0,
            seed=seed,
        )
        # A run uses up the model that it starts from.
        start = load(str(folder / "early" / "model"))
        return trained("dpo", start, items, settings, folder / arm)

    arms: dict[str, Callable[[], Loaded]] = {
        "base": base,
        "sft_early": lambda: early,
        "dpo": lambda: dpo("dpo", found),
        "dpo_drawn_sides": lambda: dpo("drawn", with_drawn_sides(found, seed)),
        "sft": lambda: sft("sft", rows, given.steps),
        "sft_shuffled": lambda: sft("shuffled", shuffled(rows, seed), given.steps),
    }
    made: dict[str, Measures] = {}
    for arm, make in arms.items():
        made[arm] = measured(make(), held_out)
        print(f"seed {seed}, {len(found)} pairs: {arm} {means(made[arm])}", file=sys.stderr, flush=True)
    return made


def means(measures: Measures) -> dict[str, float]:
    return {name: round(sum(values) / len(values), 3) for name, values in measures.items()}


def compared(seeds: Sequence[dict[str, Measures]], left: str, right: str) -> dict[str, float]:
    """The difference of two arms in right calls, with its 95 % interval."""
    values = [row.extras.tool_calls[0].arguments for row in held_out_requests(0)] * len(seeds)
    sides = [[score for seed in seeds for score in seed[arm]["tool_call"]] for arm in (left, right)]
    found = bootstrap_mean([a - b for a, b in zip(*sides, strict=True)], values, 0.025, 0)
    return {name: round(getattr(found, name), 3) for name in ("value", "low", "high")}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=300, help="requests to learn from")
    parser.add_argument("--steps", type=int, default=40, help="of SFT; two fifths of them early, then DPO")
    parser.add_argument("--seeds", type=int, default=2)
    given = parser.parse_args()
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        seeds = list(pool.map(partial(one_seed, given), range(given.seeds)))
    pooled = {
        arm: {name: [score for seed in seeds for score in seed[arm][name]] for name in MEASURED}
        for arm in seeds[0]
    }
    report = {
        "held_out": len(held_out_requests(0)),
        "seeds": given.seeds,
        "arms": {arm: means(measures) for arm, measures in pooled.items()},
        "differences": {f"{a} - {b}": compared(seeds, a, b) for a, b in COMPARED},
        "cpu_s": round(os.times().children_user),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
