"""What a version rests on, read from the log: models it was made of, data, verdicts, deployments."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from escultor.errors import InputError
from escultor.store import Store
from escultor.store.cycles import recorded_cycles
from escultor.types import Checkpoint, DatasetVersion, Deployment, Interaction, Scores, Verdict

SHORT = 12  # digits of a hash that are shown
RULE = "rule "  # before the rules among the counts of a dataset


@dataclass(frozen=True, slots=True)
class LineageNode:
    """One thing that a version rests on: its kind, id, what is said of it, and what it rests on in turn. A
    thing that stands further up in the tree is not unfolded again."""

    kind: str
    id: str
    text: str
    rests_on: tuple[LineageNode, ...] = ()

    @property
    def shown_id(self) -> str:
        """The beginning of a hash; ids that begin with a time, whole."""
        return self.id if "-" in self.id else self.id[:SHORT]


@dataclass(slots=True)
class LineageReader:
    """Reads the lineage of versions from one store."""

    store: Store
    _seen: set[str] = field(default_factory=set)

    def of(self, version: str) -> LineageNode:
        """The tree of a checkpoint. Raises InputError where the store has none of this id."""
        record = self.store.log.get(Checkpoint, version)
        if record is None:
            raise InputError("the store knows no such model", version, "an id that `escultor models` shows")
        self._seen.add(version)
        text = f"{record.name}: {record.method}, {record.parameters:,} parameters"
        below = [*self._decisions(version), *self._data(record)]
        below += [self._parent(parent) for parent in record.parents]
        return LineageNode("model", version, text, tuple(below))

    def _parent(self, id: str) -> LineageNode:
        if id in self._seen or self.store.log.get(Checkpoint, id) is None:
            return LineageNode("model", id, "see above" if id in self._seen else "not in this store")
        return self.of(id)

    def _data(self, record: Checkpoint) -> Iterator[LineageNode]:
        """The datasets of a model, with how many of their rows each rule made of feedback."""
        for hash in dict.fromkeys((record.dataset_hash, *record.datasets)):
            dataset = self.store.log.get(DatasetVersion, hash) if hash else None
            if dataset is not None:
                rules = {n[len(RULE) :]: k for n, k in dataset.counts.items() if n.startswith(RULE)}
                counted = ", ".join(f"{name} {n:,}" for name, n in sorted(rules.items()))
                text = f"{dataset.name}: {dataset.rows:,} {dataset.kind} rows" + f" ({counted})" * bool(rules)
                yield LineageNode("dataset", hash, text)
            elif hash:
                yield LineageNode("dataset", hash, "not in this store")

    def _decisions(self, version: str) -> Iterator[LineageNode]:
        """Scores, verdicts, cycles and deployments of a model."""
        log = self.store.log
        for _, scores in log.read(Scores, target=version):
            yield LineageNode("scores", scores.id, f"{len(scores.items):,} items of suite {scores.suite}")
        for _, verdict in log.read(Verdict, target=version):
            name, because = type(verdict).__name__.lower(), verdict.because
            text = f"{name}, against {because.champion}: {because.reason}"
            yield LineageNode("verdict", because.id, text)
        for cycle in recorded_cycles(self.store):
            if cycle.candidate == version:
                by = f", approved: {cycle.approved_by}" if cycle.approved_by else ""
                yield LineageNode("cycle", cycle.id, f"{cycle.state}{by}: {cycle.last.reason}")
        for _, deployment in log.read(Deployment, target=version):
            yield LineageNode("deployment", deployment.id, f"champion: {deployment.because}")


def mermaid(root: LineageNode) -> str:
    """A lineage as a flowchart in Mermaid's language."""
    lines = ["flowchart BT"]

    def draw(node: LineageNode, number: str) -> None:
        text = f"{node.kind} {node.shown_id}<br>{node.text}"[:200].replace('"', "'").replace("\n", " ")
        lines.append(f'    {number}["{text}"]')
        for index, below in enumerate(node.rests_on):
            draw(below, f"{number}_{index}")
            lines.append(f"    {number}_{index} --> {number}")

    draw(root, "n")
    return "\n".join(lines) + "\n"


def deployment_at(store: Store, row: Interaction) -> Deployment | None:
    """The deployment in force when an answer was asked for."""
    last = None
    for _, deployment in store.log.read(Deployment):
        if deployment.time > row.time:
            break
        last = deployment
    return last
