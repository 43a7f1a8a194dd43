"""What is logged of an answer is what was asked, where it went and what came of it; nothing is made up."""

from dataclasses import fields

from escultor.ids import hash_value
from escultor.serve.interactions import Outcome, Placement, Request, interaction, machine_cost_usd
from escultor.types import Consent, Interaction, Lineage, Message, Relation, Role, Sampling, Usage

MESSAGES = (Message(Role.USER, "Which bird sings?"),)
REQUEST = Request(
    MESSAGES,
    "s1",
    "chat",
    Lineage("parent", Relation.REGENERATE),
    Consent.EVAL_ONLY,
    9e9,
    "chatcmpl-1",
    "key-1",
)
PLACEMENT = Placement("v7", "candidate", 0.25)
OUTCOME = Outcome("the red one", "cancelled", Usage(5, 3), 12.0, 4.0, 1e-6)
SAMPLING = Sampling(0.7, 0.9, 32, 11)


def test_every_field_of_a_row_comes_from_the_request_its_place_or_its_outcome():
    made = interaction(REQUEST, PLACEMENT, SAMPLING, OUTCOME, 100.0)
    for part in (REQUEST, PLACEMENT, OUTCOME):
        assert all(getattr(made, f.name) == getattr(part, f.name) for f in fields(part))
    assert (made.time, made.sampling, made.prompt_hash) == (100.0, SAMPLING, hash_value(MESSAGES))
    named = {f.name for part in (REQUEST, PLACEMENT, OUTCOME) for f in fields(part)}
    assert {f.name for f in fields(Interaction)} == named | {"time", "sampling", "prompt_hash"}


def test_a_request_without_an_id_gets_one_of_its_own():
    asked = Request(MESSAGES, "s1")
    one, two = (interaction(asked, PLACEMENT, SAMPLING, OUTCOME, 100.0) for _ in range(2))
    assert one.id != two.id
    assert one.id.startswith("chatcmpl-")


def test_an_hour_costs_its_price():
    assert machine_cost_usd(3600, 0.25) == 0.25
    assert machine_cost_usd(0, 0.25) == 0
