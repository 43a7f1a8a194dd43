"""Records for the store's tests: a strategy for every variant, and short makers."""

from hypothesis import strategies as st

from escultor.store.kinds import KINDS
from escultor.types import Deployment, Interaction, Message, Rating, Role, Sampling, Step, Usage

VARIANTS = [variant for kind in KINDS for variant in kind.variants]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
steps = st.builds(Step, result=st.dictionaries(st.text(), json_values, max_size=3))


def records_of(variant: type):
    """Any record of a variant, floats that are no number included."""
    return steps if variant is Step else st.from_type(variant)


def rating(id: str, target: str = "answer", subject: str = "person", time: float = 1.0) -> Rating:
    return Rating(id, time, target, subject, "thumb", True)


def deployment(id: str, **aliases: str) -> Deployment:
    return Deployment(id, 1.0, {aliases["champion"]: 1.0}, aliases, "a test")


def make_interaction(id: str, subject: str = "person") -> Interaction:
    messages = (Message(Role.USER, f"the question of {id}"),)
    return Interaction(
        id, 1.0, "chat", subject, "v1", "champion", 1.0, messages, "an answer", "stop", Sampling(),
        Usage(3, 2), 9.0, None, 0.0, "hash",
    )  # fmt: skip
