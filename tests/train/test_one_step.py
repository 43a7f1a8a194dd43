"""One training step, from batch to weights, in fewer lines than a reader is asked for; and where they are."""

import inspect
import re
from pathlib import Path

from escultor.model import forward, head
from escultor.train import loop, optim, streams
from escultor.train.methods import tokens
from escultor.train.objectives import nll

DOCS = Path(__file__).parents[2] / "docs" / "architecture.md"
STEP = (  # in the order in which a step of `sft` goes through them
    loop.train,
    streams.RowStream.micro_batches,
    loop._accumulate,
    tokens.per_token,
    forward.logp_at_labels,
    forward.hidden_at_labels,
    head.linear_logp,
    head._LinearLogp,
    nll.nll,
    loop._reduce,
    loop._divide_and_clip,
    optim.Optimizers.step,
)


def test_a_step_is_read_in_under_200_lines_and_the_documentation_names_them():
    (named,) = re.findall(r"### Where a step is taken\n.*?\n#", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    at = [named.index(f"`{part.__qualname__}`") for part in STEP]
    assert at == sorted(at)
    for part in STEP:
        assert f"`{'/'.join(part.__module__.split('.')[1:])}.py`" in named
    assert "under 200 lines" in named
    assert sum(len(inspect.getsource(part).splitlines()) for part in STEP) < 200
