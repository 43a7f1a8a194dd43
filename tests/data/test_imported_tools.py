"""Exports of tracing and labelling tools in the forms of their APIs: answers, and who said what of them."""

import json

import pytest

from escultor.data.importers import events
from escultor.data.importers.scores import ScoreSurvey, Statement
from escultor.types import Feedback, Message, Rating, Role, SourceKind, Usage

DAY = "2026-01-02T00:00:00Z"
ASK = {"role": "user", "content": "Capital of Brazil?"}
CHAT = [{"role": "system", "content": "Be brief."}, ASK]
SAY = {"role": "assistant", "content": "Brasília"}
PROMPT = (Message(Role.SYSTEM, "Be brief."), Message(Role.USER, "Capital of Brazil?"))


# --- Langfuse ---------------------------------------------------------------------------------


def score(id="s1", **more):
    base = {
        "id": id,
        "name": "user-feedback",
        "source": "API",
        "dataType": "NUMERIC",
        "value": 1,
        "comment": None,
    }
    return base | {"traceId": "t1", "observationId": None, "authorUserId": None, "updatedAt": DAY} | more


def test_thumbs_of_many_people_stay_those_of_many_people(brought):
    found = brought(
        score("1", trace={"userId": "ann"}),
        score("2", userId="bob", value=0, comment="wrong"),
        score("3", traceId="t3"),
        score("4", traceId="t4"),
        score("5", traceId="t5", sessionId="se"),
        score("6", traceId="t6", sessionId="se"),
    )
    thumbs = [each for each in found.said if each[0] == "rating"]
    assert thumbs[:2] == [("rating", "t1", "thumb", True, "ann"), ("rating", "t1", "thumb", False, "bob")]
    assert len({each[4] for each in thumbs}) == 5  # the two of one session are one person
    assert ("remark", "t1", None, "wrong", "bob") in found.said
    assert found.report.counts["people unknown: kept apart by trace"] == 2
    assert found.report.counts["people unknown: kept apart by session"] == 2


def v3(own_id, data_type, value, **subject):
    base = {
        "id": own_id,
        "projectId": "p",
        "name": "user-feedback",
        "source": "API",
        "timestamp": DAY,
        "updatedAt": DAY,
    }
    return base | {"dataType": data_type, "value": value} | ({"subject": subject} if subject else {})


def test_the_scores_of_the_third_api_name_what_they_are_about(brought):
    scores = [
        v3("1", "BOOLEAN", True, kind="trace", id="t1"),
        v3("2", "CORRECTION", "Better.", kind="observation", id="o1", traceId="t1") | {"name": "output"},
        v3("3", "TEXT", "Too long.", kind="trace", id="t1") | {"name": "fb"},
        v3("4", "CATEGORICAL", "polite", kind="trace", id="t2") | {"name": "tone"},
        v3("5", "NUMERIC", 3, kind="session", id="se1") | {"name": "sess"},
        v3("6", "BOOLEAN", True),
    ]
    found = brought({"data": scores, "meta": {"limit": 50}})
    assert [each[:4] for each in found.said] == [
        ("rating", "t1", "thumb", True),
        ("correction", "o1", None, "Better."),
        ("remark", "t1", None, "Too long."),
        ("remark", "t2", None, "tone: polite"),
    ]
    assert found.report.counts["a score of a session, not of an answer"] == 1
    assert any("fields=subject" in reason for reason in found.report.counts)


TRACE = {
    "id": "t1",
    "timestamp": DAY,
    "userId": "ann",
    "sessionId": None,
    "input": {"messages": CHAT},
    "output": SAY,
    "latency": 1.5,
}


def test_a_trace_is_an_answer_and_who_asked_is_who_scored_it(brought):
    brought(TRACE)
    found = brought(v3("1", "BOOLEAN", False, kind="trace", id="t1"))
    assert found.said == [("rating", "t1", "thumb", False, "ann")]
    call = found.interactions["t1"]
    assert (call.messages, call.answer, call.subject, call.latency_ms) == (
        PROMPT,
        "Brasília",
        "hash(ann)",
        1500.0,
    )


def test_the_messages_of_a_table_are_json_and_so_may_an_answer_be(brought):
    table = {"input": json.dumps(TRACE["input"]), "output": json.dumps(SAY)}
    found = brought(TRACE | table, TRACE | {"id": "t2", "output": '{"city": "Brasília"}'}).interactions
    assert (found["t1"].messages, found["t1"].answer) == (PROMPT, "Brasília")
    assert found["t2"].answer == '{"city": "Brasília"}'


def test_a_trace_with_details_holds_its_scores_and_one_answer(brought):
    observation = {"id": "o1", "traceId": "t1", "type": "GENERATION", "startTime": DAY, "model": "m"}
    observation |= {"input": TRACE["input"], "output": SAY}
    scores = [
        score("1"),
        score("2", observationId="o1", source="EVAL", name="toxic", dataType="BOOLEAN", value=0),
    ]
    found = brought(TRACE | {"observations": [observation], "scores": scores})
    assert [(i.id, i.version) for i in found.interactions.values()] == [("t1", "m")]
    assert [each[:4] for each in found.said] == [
        ("rating", "t1", "thumb", True),
        ("rating", "t1", "toxic", False),
    ]
    assert found.feedback[1].source is SourceKind.LLM_JUDGE


def test_the_columns_of_a_trace_export_are_scores(brought):
    found = brought(TRACE | {"user-feedback": [0], "quality": [0.7], "tags": ["a"], "comments": []})
    assert found.said == [("rating", "t1", "thumb", False, "ann"), ("rating", "t1", "quality", 0.7, "ann")]


def test_a_generation_is_an_answer_of_its_own(brought):
    row = {
        "id": "o1",
        "traceId": "t",
        "type": "GENERATION",
        "startTime": DAY,
        "endTime": "2026-01-02T00:00:02Z",
    }
    usage = {"usageDetails": {"input": 9, "output": 2}, "userId": "ann", "providedModelName": "m"}
    found = brought(
        row | usage | {"input": CHAT, "output": "Brasília"},
        row | {"id": "o2", "type": "SPAN", "input": 1, "output": 2},
    )
    (call,) = found.interactions.values()
    assert (call.usage, call.latency_ms, call.version) == (Usage(9, 2), 2000.0, "m")
    assert found.report.counts["an observation that is no generation"] == 1


COLUMNS = "id,traceId,sessionId,timestamp,source,name,dataType,value,stringValue,comment,observationId,userId"
TABLE = f"""{COLUMNS}
s1,t1,,{DAY},API,user-feedback,BOOLEAN,1,True,fine,,ann
s2,t1,,{DAY},API,user-feedback,BOOLEAN,0,False,,,bob
s3,t2,,{DAY},API,quality,NUMERIC,0.7,,,,
"""


def test_the_scores_of_a_table_are_read(store, tmp_path):
    path = tmp_path / "scores.csv"
    path.write_text(TABLE)
    assert events.format_of(path) == "langfuse"
    report = events.import_events(path, "langfuse", store.log, events.ImportOptions(str))
    assert report.read == {"thumbs": 2, "remarks": 1, "scores": 1}
    ratings = [e for _, e in store.log.read(Feedback) if isinstance(e, Rating)]
    assert [(e.name, e.value, e.subject) for e in ratings[:2]] == [
        ("thumb", True, "ann"),
        ("thumb", False, "bob"),
    ]
    assert (ratings[2].name, ratings[2].value) == ("quality", 0.7)


# --- LangSmith --------------------------------------------------------------------------------


def constructor(name, content):
    return {
        "lc": 1,
        "type": "constructor",
        "id": ["langchain", "schema", name],
        "kwargs": {"content": content},
    }


RUN = {"id": "r1", "run_type": "llm", "start_time": "2025-01-01T00:00:00", "end_time": "2025-01-01T00:00:01"}
LANGCHAIN = {
    "inputs": {
        "messages": [[constructor("SystemMessage", "Be brief."), constructor("HumanMessage", ASK["content"])]]
    },
    "outputs": {"generations": [[{"text": "Brasília", "message": constructor("AIMessage", "Brasília")}]]},
    "extra": {"metadata": {"ls_model_name": "m", "user_id": "ann"}},
}


def test_langsmith_runs(brought):
    child = {"id": "r3", "run_type": "chain", "parent_run_id": "r2", "inputs": {"question": "?"}}
    found = brought(
        RUN | LANGCHAIN,
        RUN
        | {"id": "r2", "run_type": "chain", "inputs": {"question": "When?"}, "outputs": {"answer": "1960"}},
        RUN | child,
        RUN | {"id": "r4", "run_type": "tool", "inputs": {"input": "x"}, "outputs": {"output": "y"}},
        RUN | {"id": "r5", "inputs": {"messages": CHAT}, "outputs": None, "error": "Timeout"},
    )
    assert found.format == "langsmith"
    first = found.interactions["r1"]
    assert (first.messages, first.answer, first.version, first.subject) == (
        PROMPT,
        "Brasília",
        "m",
        "hash(ann)",
    )
    assert found.interactions["r2"].answer == "1960"
    assert set(found.interactions) == {"r1", "r2"}
    for reason in ("a step within a run", "a run of type 'tool'", "a failed call is no answer"):
        assert found.report.counts[reason] == 1


def test_langsmith_feedback(brought):
    base = {
        "run_id": "r1",
        "key": "user_score",
        "score": 1,
        "value": None,
        "comment": None,
        "created_at": DAY,
    }
    person = {"feedback_source": {"type": "app", "user_id": "bo"}}
    found = brought(
        base | {"id": "1", "comment": "good"},
        base | {"id": "2", "score": 0} | person,
        base | {"id": "3", "key": "correctness", "score": 0.3, "feedback_source": {"type": "model"}},
        base | {"id": "4", "key": "fix", "score": None, "correction": {"output": "Since 1960."}} | person,
    )
    assert [each[:4] for each in found.said] == [
        ("rating", "r1", "thumb", True),
        ("remark", "r1", None, "good"),
        ("rating", "r1", "thumb", False),
        ("rating", "r1", "correctness", 0.3),
        ("correction", "r1", None, "Since 1960."),
    ]
    assert [e.subject for e in found.feedback[2:]] == ["hash(bo)", "hash(judge:correctness)", "hash(bo)"]
    assert found.report.thumbs == {"user_score"}


# --- Phoenix ----------------------------------------------------------------------------------

DOTTED = {
    "llm.model_name": "m",
    "llm.input_messages.0.message.role": "system",
    "llm.input_messages.0.message.content": "Be brief.",
    "llm.input_messages.1.message.role": "user",
    "llm.input_messages.1.message.contents.0.message_content.type": "text",
    "llm.input_messages.1.message.contents.0.message_content.text": "Capital of Brazil?",
    "llm.output_messages.0.message.role": "assistant",
    "llm.output_messages.0.message.content": "Brasília",
    "llm.token_count.prompt": 9,
    "user.id": "ann",
}
NESTED = {
    "llm": {
        "model_name": "m",
        "input_messages": [{"message": m} for m in CHAT],
        "output_messages": [{"message": SAY}],
        "token_count": {"prompt": 9},
    },
    "user": {"id": "ann"},
}
SPAN = {
    "context": {"span_id": "sp1", "trace_id": "tr"},
    "span_kind": "LLM",
    "start_time": DAY,
    "parent_id": "p",
}
SPANS = {
    "of the API": {"data": [SPAN | {"attributes": DOTTED}], "next_cursor": None},
    "nested": SPAN | {"attributes": NESTED},
    "of a data frame": {
        "context.span_id": "sp1",
        "start_time": 1767312000000,
        "attributes.llm.input_messages": [
            {"message.role": m["role"], "message.content": m["content"]} for m in CHAT
        ],
        "attributes.llm.output_messages": [{"message.role": "assistant", "message.content": "Brasília"}],
        "attributes.llm.model_name": "m",
        "attributes.user.id": "ann",
    },
}


@pytest.mark.parametrize("row", SPANS.values(), ids=SPANS)
def test_phoenix_spans(brought, row):
    found = brought(row)
    assert found.format == "phoenix"
    call = found.interactions["sp1"]
    assert (call.messages, call.answer, call.version) == (PROMPT, "Brasília", "m")
    assert (call.subject, call.time) == ("hash(ann)", 1767312000.0)


def test_phoenix_annotations(brought):
    human = {
        "span_id": "sp1",
        "name": "quality",
        "annotator_kind": "HUMAN",
        "updated_at": DAY,
        "user_id": "ann",
    }
    judge = human | {"name": "halluc", "annotator_kind": "LLM", "user_id": None}
    found = brought(
        {"data": [human | {"result": {"label": "thumbs-up", "score": 1, "explanation": "nice"}}]},
        {"data": [judge | {"result": {"label": "factual", "score": 0.2, "explanation": None}}]},
        {"span_id": "s2", "name": "quality", "annotator_kind": "HUMAN", "result": {"label": "bad"}},
    )
    assert [each[:4] for each in found.said] == [
        ("rating", "sp1", "thumb", True),
        ("remark", "sp1", None, "nice"),
        ("rating", "sp1", "halluc", 0.2),
        ("remark", "sp1", None, "halluc: factual"),
        ("rating", "s2", "thumb", False),
    ]
    assert found.report.counts["without a time: dated as the file is"] == 1


# --- MLflow -----------------------------------------------------------------------------------


def assessment(name, **more):
    return {
        "assessment_name": name,
        "source": {"source_type": "HUMAN", "source_id": "bob"},
        "create_time": DAY,
    } | more


def test_mlflow_traces_and_assessments(brought):
    inputs = {"mlflow.spanInputs": json.dumps({"messages": CHAT})}
    outputs = {"mlflow.spanOutputs": json.dumps({"choices": [{"message": SAY, "finish_reason": "length"}]})}
    said = [
        assessment("user_satisfaction", feedback={"value": False}, rationale="too short"),
        assessment("expected_response", expectation={"value": "Brasília, since 1960."}),
        assessment("relevance", feedback={"value": "yes"})
        | {"source": {"source_type": "LLM_JUDGE", "source_id": "j"}},
        assessment("user_satisfaction", feedback={"value": True}, valid=False),
        assessment("user_satisfaction", feedback={"value": [1]}),
    ]
    info = {"trace_id": "tr-1", "request_time": DAY, "state": "OK", "assessments": said}
    info["trace_metadata"] = {"mlflow.trace.user": "ann"}
    found = brought(
        {"info": info, "data": {"spans": [{"parent_span_id": None, "attributes": inputs | outputs}]}}
    )
    call = found.interactions["tr-1"]
    assert (call.messages, call.answer, call.subject, call.finish_reason) == (
        PROMPT,
        "Brasília",
        "hash(ann)",
        "length",
    )
    assert found.said == [
        ("rating", "tr-1", "thumb", False, "bob"),
        ("remark", "tr-1", None, "too short", "bob"),
        ("correction", "tr-1", None, "Brasília, since 1960.", "bob"),
        ("rating", "tr-1", "relevance", True, "mlflow:judge:j"),
    ]
    assert found.report.counts["an assessment that another one replaced"] == 1


def test_mlflow_traces_of_version_2(brought):
    info = {
        "request_id": "old",
        "timestamp_ms": 1733000000000,
        "execution_time_ms": 500,
        "request_metadata": {},
    }
    row = {
        "info": info,
        "data": {"request": '{"question": "What?"}', "response": '"A platform."', "spans": []},
    }
    call = brought(row).interactions["old"]
    assert (call.messages[0].content, call.answer, call.time) == ("What?", "A platform.", 1733000000.0)


def test_mlflow_traces_of_a_data_frame_and_assessments_alone(brought):
    said = assessment("user_satisfaction", feedback={"value": True})
    row = {
        "trace_id": "t",
        "request_time": DAY,
        "request": json.dumps({"messages": CHAT}),
        "response": '"Brasília"',
    }
    found = brought(row | {"assessments": [said], "spans": []}, said | {"trace_id": "t"})
    assert (found.format, found.interactions["t"].messages) == ("mlflow", PROMPT)
    assert found.said == [("rating", "t", "thumb", True, "bob")] * len(found.said)


# --- Helicone, OpenAI -------------------------------------------------------------------------


def test_helicone_requests(brought):
    base = {"request_created_at": DAY, "response_status": 200, "request_user_id": "ann"}
    anthropic = {
        "role": "assistant",
        "content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "Oi"}],
    }
    found = brought(
        base
        | {
            "request_id": "h1",
            "request_body": {"messages": CHAT},
            "response_body": {"choices": [{"message": SAY}]},
        }
        | {"feedback_rating": True, "scores": {"accuracy": {"value": 80, "valueType": "number"}}},
        base
        | {"request_id": "h2", "request_body": {"system": "Be brief.", "messages": [ASK]}}
        | {"response_body": anthropic | {"stop_reason": "max_tokens"}},
        base
        | {
            "request_id": "h3",
            "request_body": {"messages": [ASK]},
            "response_body": {},
            "response_status": 429,
        },
    )
    assert {i.messages for i in found.interactions.values()} == {PROMPT}
    assert (found.interactions["h2"].answer, found.interactions["h2"].finish_reason) == ("Oi", "length")
    assert found.said[0] == ("rating", "h1", "thumb", True, "ann")
    assert (found.said[1][2:4], found.feedback[1].source) == (("accuracy", 80.0), SourceKind.CODE)
    assert found.report.counts["a failed call is no answer"] == 1


def test_stored_completions_need_their_messages(brought):
    row = {"object": "chat.completion", "id": "c1", "created": 1738960610, "model": "m"}
    row |= {"choices": [{"message": SAY, "finish_reason": "stop"}], "usage": {"prompt_tokens": 3}}
    found = brought(row, row | {"id": "c2", "messages": CHAT})
    assert [(i.id, i.messages) for i in found.interactions.values()] == [("c2", PROMPT)]
    assert any("join GET /v1/chat/completions" in reason for reason in found.report.counts)


# --- labelling tools --------------------------------------------------------------------------

PAIR = {"instruction": "Capital of Brazil?", "response_1": "Rio", "response_2": "Brasília"}
RANKED = [{"rank": 2, "value": "response_1"}, {"rank": 1, "value": "response_2"}]
CHOICES = {
    "argilla 2": {
        "fields": PAIR,
        "responses": {"ranking": [{"value": ["response_2", "response_1"], "user_id": "u"}]},
    },
    "argilla 1": {
        "fields": PAIR,
        "responses": [{"user_id": "u", "status": "submitted", "values": {"ranking": {"value": RANKED}}}],
    },
    "argilla columns": PAIR | {"preference.responses": ["response_2"], "preference.responses.users": ["u"]},
    "label studio": {
        "data": PAIR,
        "annotations": [
            {"completed_by": "u", "result": [{"from_name": "pw", "value": {"selected": "right"}}]}
        ],
    },
    "label studio, flat": PAIR | {"pw": "right", "annotator": "u", "lead_time": 3.2},
}


@pytest.mark.parametrize("row", CHOICES.values(), ids=CHOICES)
def test_a_preference_between_two_responses_is_a_choice(brought, row):
    found = brought({"id": "e1"} | row)
    ((kind, shown, _, winner, who),) = found.said
    assert (kind, winner, who.rpartition(":")[2]) == ("choice", shown[1], "u")
    assert [found.interactions[id].answer for id in shown] == ["Rio", "Brasília"]
    assert {i.messages for i in found.interactions.values()} == {(Message(Role.USER, "Capital of Brazil?"),)}


WORDS = ["right", "Response 2", "B", "2", "B is better", "answer 2 is slightly better"]


@pytest.mark.parametrize("word", WORDS)
def test_a_choice_in_words_names_its_side(brought, word):
    result = [{"from_name": "which", "value": {"choices": [word]}}]
    row = {"id": 1, "data": PAIR, "annotations": [{"completed_by": "u", "result": result}]}
    assert [each[3] for each in brought(row).said] == ["labelstudio-1/response_2"]


def test_fields_under_other_names(brought):
    fields = {"user-prompt": "?", "response-1": "a", "response-2": "b"}
    others = {"question-text": "?", "answer": "a"}
    found = brought(
        {"id": "1", "fields": fields, "responses": {}}, {"id": "2", "fields": others, "responses": {}}
    )
    assert {i.messages[0].content for i in found.interactions.values()} == {"?"}
    assert len(found.interactions) == 3


def test_argilla_responses_and_suggestions_to_one_response(brought):
    values = {"rating": {"value": 2}, "corrected": {"value": "Brasília"}, "comment": {"value": "not Rio"}}
    found = brought(
        {
            "id": "e1",
            "fields": {"prompt": "Capital of Brazil?", "response": "Rio"},
            "responses": [
                {"user_id": "u", "status": "submitted", "values": values},
                {"user_id": "v", "status": "discarded", "values": None},
                {"user_id": "w", "status": "draft", "values": {"rating": {"value": 5}}},
            ],
            "suggestions": [{"question_name": "rating", "value": 3, "agent": "gpt"}],
        }
    )
    target = "argilla-e1/response"
    assert found.said == [
        ("rating", target, "rating", 2.0, "argilla:u"),
        ("correction", target, None, "Brasília", "argilla:u"),
        ("remark", target, None, "not Rio", "argilla:u"),
        ("rating", target, "rating", 3.0, "argilla:agent:gpt"),
    ]
    assert found.feedback[3].source is SourceKind.LLM_JUDGE


def test_label_studio_choices_ratings_and_texts(brought):
    results = [("quality", "choices", ["Good"]), ("stars", "rating", 4), ("better", "text", ["Brasília."])]
    result = [{"from_name": name, "value": {key: value}} for name, key, value in results]
    skipped = {"completed_by": 5, "was_cancelled": True, "result": result}
    row = {
        "id": 6,
        "data": {"question": "?", "answer": "r"},
        "annotations": [{"completed_by": 4, "result": result}, skipped],
    }
    assert [each[2:4] for each in brought(row).said] == [("thumb", True), ("stars", 4.0), (None, "Brasília.")]


def test_distilabel_ratings_are_a_judges(brought):
    row = {"instruction": "?", "generations": ["a", "b"], "ratings": [1, None], "rationales": ["bad", None]}
    found = brought(row | {"generation_models": ["m1", "m2"], "model_name": "judge"})
    assert {i.version for i in found.interactions.values()} == {"m1", "m2"}
    assert [each[2:4] for each in found.said] == [("rating", 1.0), ("rationale", False)]
    assert {e.source for e in found.feedback} == {SourceKind.LLM_JUDGE}


# --- which score is the thumb -----------------------------------------------------------------

SAID = Statement("i", 1.0, "t", "s")


@pytest.mark.parametrize(
    ("scores", "thumbs"),
    [
        ([("anything", True)], {"anything"}),
        ([("quality", 1), ("quality", 0)], {"quality"}),
        ([("quality", 1), ("quality", -1)], {"quality"}),
        ([("quality", 1)], set()),  # it may be the lowest of five
        ([("userFeedback", 1)], {"userFeedback"}),
        ([("quality", 1), ("quality", 0), ("quality", 0.5)], set()),
        ([("toxicity", True)], set()),
        ([("correct", True), ("short", True)], set()),
        ([("correct", True), ("user-feedback", True)], {"user-feedback"}),
        (
            [("user-feedback", True), ("user_feedback", 1), ("user_feedback", 0)],
            {"user-feedback", "user_feedback"},
        ),
        ([("verdict", "good"), ("verdict", "bad")], {"verdict"}),
        ([("tone", "polite"), ("tone", "rude")], set()),
        ([("quality", "1"), ("quality", "0")], {"quality"}),  # numbers of a table are text
    ],
)
def test_the_thumb_is_found_among_the_scores(scores, thumbs):
    survey = ScoreSurvey()
    for name, value in scores:
        survey.score(SAID, name, value)
    survey.decide(None)
    assert survey.chosen == thumbs


def test_a_zero_beside_minus_one_says_nothing_and_judges_give_no_thumbs():
    survey = ScoreSurvey()
    for value in (1, 0, -1):
        survey.score(SAID, "vote", value)
    survey.decide(None)
    assert [len(survey.score(SAID, "vote", value)) for value in (1, 0, -1)] == [1, 0, 1]
    (made,) = survey.score(SAID._replace(source=SourceKind.LLM_JUDGE), "vote", True)
    assert made.name == "vote"  # pyright: ignore


def test_the_thumb_may_be_named(brought, tmp_path):
    rows = (
        score("1", name="a", dataType="BOOLEAN", value=1),
        score("2", name="b", dataType="BOOLEAN", value=0),
    )
    assert brought(*rows).report.undecided == ("a", "b")
    path = tmp_path / "events.jsonl"
    found = {}
    for thumb in ("b", ""):
        options = events.ImportOptions(str.upper, thumb=thumb)
        session_rows = [row | {"id": f"{thumb}-{row['id']}"} for row in rows]
        found[thumb] = [each[2] for each in brought(*session_rows, options=options).said[-2:]]
    assert path.exists()
    assert found == {"b": ["a", "thumb"], "": ["a", "b"]}
