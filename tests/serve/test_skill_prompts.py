"""What a skill asks is the same tokens wherever it is asked: served, learnt, measured."""

from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import llama

from escultor.config import Evaluation, Serve
from escultor.evaluate.predictions import tokenized_prompts
from escultor.serve.engines.generation_state import Detokenizer
from escultor.serve.wire.requests import parse_chat
from escultor.skills.declaration import parse_skill
from escultor.skills.suite_files import skill_examples, skill_suite

words = st.text(st.sampled_from("ab \n{}<|é日>:."), min_size=1, max_size=30).filter(str.strip)


@settings(max_examples=40, deadline=None)
@given(
    instruction=st.one_of(st.just(""), words),
    place=st.sampled_from(["system", "user"]),
    text=words,
    more=words,
)
def test_a_skills_prompt_is_the_same_tokens_served_learnt_and_measured(
    tmp_path_factory, instruction, place, text, more
):
    inputs = {"question": text, "context": more}
    data = {
        "name": "s",
        "instruction": instruction,
        "inputs": list(inputs),
        "metrics": ["exact_match"],
        "suite": [{"input": inputs, "reference": "a"}],
        "examples": [{"input": inputs, "output": "a"}],
    }
    if place == "user":
        data["prompt"] = "{instruction} {question} / {context}"
    skill, loaded = parse_skill(data, tmp_path_factory.getbasetemp(), "here"), MODEL
    suite, (example,) = skill_suite(skill, Evaluation()), skill_examples(skill)
    (measured,) = tokenized_prompts(loaded, suite)
    learnt = loaded.chat.example(example.prompt, example.response).prompt
    messages = [{"role": str(m.role), "content": m.content} for m in skill.prompt(inputs)]
    body = {"model": "m", "messages": messages}
    (request,) = parse_chat(body, Serve()).generations
    served, _ = Detokenizer(loaded).prompt_ids(request)
    assert list(measured) == list(served)
    assert list(learnt) == list(served)


MODEL = llama(context=512)
