"""Simulated thumbs: the same for a document and its turn, whatever the answers' ids."""

from dataclasses import replace

from escultor.demo.documentation import golds
from escultor.demo.python_docs import DocEntry
from escultor.demo.users import judge
from escultor.skills.trinity import prompt_for
from escultor.store import open_store
from escultor.types import Interaction, Sampling, Usage


def test_thumbs_do_not_know_the_ids_of_answers(tmp_path):
    body = "Takes two cats and gives back one dog. It runs fast, and it sleeps here and there. " * 2
    entries = [
        DocEntry(f"p{i}", f"p{i}.cats.cat{i}", "function", f"cat{i}(a)", f"Make cat {i} sing.\n\n{body}{i}")
        for i in range(6)
    ]
    found = golds(entries)
    first = [
        Interaction(
            f"one-{g.id}-{n}", 1.0, "trinity", "s", "v", "champion", 1.0, prompt_for(g.document),
            g.trinity.to_json() if n % 2 else "no", "stop", Sampling(), Usage(1, 1), 1.0, None, 0.0, "h",
        )
        for g in found
        for n in range(4)
    ]  # fmt: skip
    second = [replace(i, id=i.id.replace("one", "two")) for i in first]
    with open_store(str(tmp_path / "s")) as store:
        thumbs = [[e.value for e in judge(store.log, served, found, 3)] for served in (first, second)]  # type: ignore[union-attr]
    assert thumbs[0] == thumbs[1]
    assert set(thumbs[0]) == {True, False}
