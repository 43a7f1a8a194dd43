"""The imports of a command that answers once: without the compiler, and nothing lost by it."""

import subprocess
import sys

PROGRAM = """
import sys
sys.argv = ["escultor", "generate", "escultor-base", "A list is", "--max-new-tokens", "2", "--json"]
from escultor.cli.app import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
heavy = {"torch._dynamo", "torch.distributed.tensor", "scipy.optimize", "escultor.skills.table"}
print(sorted(name for name in heavy & set(sys.modules) if vars(sys.modules[name]).get("__spec__")))

from transformers import masking_utils
from transformers.utils import is_scipy_available
with masking_utils.TransformGetItemToIndex():
    pass
import torch
torch.compile(lambda x: x + 1, backend="eager")(torch.ones(2))
print(torch._dynamo.config.__name__, is_scipy_available())
"""


def test_an_answer_imports_no_compiler_and_what_asks_for_it_gets_it():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answer, heavy, real = done.stdout.splitlines()
    assert '"finish_reason"' in answer
    assert heavy == "[]"
    assert real == "torch._dynamo.config True"
