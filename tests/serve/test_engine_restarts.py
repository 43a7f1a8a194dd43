"""An engine that dies: waiting requests fail at once, it is restarted, and one that dies again stays down."""

import json
import logging
import threading
import weakref
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest
from adapted import adapter
from gateway_side import Fake, deployment, running
from test_deployments import ASK, started
from tiny import llama

from escultor.config import Serve
from escultor.cycle import api
from escultor.errors import EngineDown
from escultor.model.folders import save
from escultor.serve import engine_loading
from escultor.serve.engine_loading import EngineSource, engine_loader
from escultor.serve.gateway.gateway import Gateway
from escultor.store import open_store

CHAT = "/v1/chat/completions"


# --- the rule -----------------------------------------------------------------------------------


async def refused(side):
    with pytest.raises(EngineDown, match="remedy") as said:
        async for _ in side.pick().handle.engine.stream(ASK):
            pass
    return str(said.value)


def test_an_engine_that_died_is_closed_before_it_is_restarted():
    @started(deployment("v1", id="d1"))
    async def _(side):
        dead = side.loaded["v1"]
        closed_first = []
        load = side.deployments._load

        async def look(version):
            closed_first.append(dead.closed)
            return await load(version)

        side.deployments._load = look
        dead.problem = "it has ended"
        await side.deployments.follow()
        assert closed_first == [True]
        assert side.pick().handle.engine is side.loaded["v1"] is not dead
        restarts = side.deployments.restarts
        assert (restarts.died, restarts.restarted) == (1, 1)
        assert side.deployments.active.problems == []


def test_one_that_dies_again_soon_stays_down_and_one_that_dies_later_does_not():
    @started(deployment("v1", id="d1"))
    async def _(side):
        for died_at, lasts in ((0.0, False), (61.0, False), (120.0, True)):
            side.now = died_at
            side.loaded["v1"].problem = "it has ended"
            await side.deployments.follow()
            assert bool(side.deployments.active.problems) is lasts
        count = len(side.loaded)
        side.now = 1e6
        await side.deployments.follow()
        assert len(side.loaded) == count
        (problem,) = side.deployments.active.problems
        assert all(word in problem for word in ("it has ended", "twice within 60 s", "stays down"))
        assert "restart the server" in await refused(side)
        side.holds = deployment("v1", id="d2")  # a person wants it again
        assert await side.deployments.follow()
        assert side.deployments.active.problems == []


def test_failed_restarts_are_repeated_after_growing_pauses_and_then_no_more():
    @started(deployment("v1", id="d1"))
    async def _(side):
        side.loaded["v1"].problem, side.broken = "it has ended", {"v1"}
        tried = []
        for now in (0.0, 0.5, 1.0, 2.5, 3.0, 100.0):
            side.now = now
            await side.deployments.follow()
            (problem,) = side.deployments.active.problems
            tried.append(problem.partition("attempt ")[2][:1])
            said = await refused(side)
        assert tried == ["1", "1", "2", "2", "3", "3"]
        assert "v1 is broken" in problem
        assert "stays down" in problem
        assert "restart the server" in said


def test_a_candidate_that_died_gives_its_share_to_the_champion_meanwhile():
    @started(deployment("v1", "v2", 0.5, id="d1"))
    async def _(side):
        assert side.pick(draw=0.1).arm == "candidate"
        side.loaded["v2"].problem, side.broken = "it has ended", {"v2"}
        pick = side.pick(draw=0.1)
        assert (pick.arm, pick.propensity) == ("champion", 1.0)
        await side.deployments.follow()
        assert side.pick(draw=0.1).arm == "champion"
        side.broken, side.now = set(), 10.0
        await side.deployments.follow()
        assert side.pick(draw=0.1).arm == "candidate"


def test_a_shadow_that_died_gets_no_requests():
    @started(deployment("v1", "v2", id="d1"))
    async def _(side):
        assert side.deployments.active.shadow.version == "v2"
        side.loaded["v2"].problem = "it has ended"
        assert side.deployments.active.shadow is None


def test_requests_that_hold_a_dead_engine_delay_its_restart_for_a_limited_time(monkeypatch):
    monkeypatch.setattr("escultor.serve.deployments.EVICT_WAIT_S", 0.01)

    @started(deployment("v1", id="d1"))
    async def _(side):
        dead = side.loaded["v1"]
        with side.pick().handle.in_use():
            dead.problem = "it has ended"
            await side.deployments.follow()
            assert dead.closed
            assert isinstance(side.pick().handle.engine, Fake)


# --- with models ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base") / "model"
    save(llama(), folder)
    return folder


class Served:
    """A gateway over real models whose decoding threads can be killed."""

    def __init__(self, side, gateway, opened):
        self.side, self.gateway, self.opened = side, gateway, opened

    def post(self, said, **more):
        body = {"model": "escultor", "messages": [{"role": "user", "content": said}], "max_tokens": 200}
        return httpx2.post(self.side.url + CHAT, json=body | more, timeout=60)

    def health(self):
        return httpx2.get(self.side.url + "/health").json()

    def kill(self):
        """Let the newest engine's thread die at its next turn; held there until it is told to go on."""
        worker, go = self.opened[-1]()._worker, threading.Event()

        def die():
            go.wait(30)
            raise SystemExit("secret words")

        worker._step = die
        return worker, go


@pytest.fixture
def served(tmp_path, base, monkeypatch):
    opened, open_model = [], engine_loading._open

    def kept(*words):
        engine = open_model(*words)
        opened.append(weakref.ref(engine))
        return engine

    monkeypatch.setattr(engine_loading, "_open", kept)
    with open_store(str(tmp_path / "store")) as store:
        settings = Serve(follow_s=0.05, batch_size=2)
        load, default, fixed = engine_loader(store, EngineSource(base), settings)
        gateway = Gateway(store, settings, load, default, fixed=fixed)
        with running(gateway) as side:
            yield Served(side, gateway, opened)


def test_every_waiting_request_fails_once_with_one_row_and_the_restarted_engine_answers_as_before(served):
    before = served.post("The cat").json()["choices"][0]["message"]["content"]
    worker, go = served.kill()
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(served.post, f"The dog {n}", stream=n % 2 > 0) for n in range(8)]
        served.side.until(lambda: worker.waiting == 8)
        go.set()
        answers = [one.result() for one in asked]
    assert {answer.status_code for answer in answers} == {503}
    for answer in answers:
        error = answer.json()["error"]
        assert (error["code"], error["type"]) == ("engine_down", "server_error")
        assert "remedy" in error["message"]
        assert "secret" not in answer.text
        assert answer.headers["retry-after"]
    served.side.until(lambda: served.health()["engines_reopened"] == 1)
    told = served.health()
    assert (told["status"], told["problem"], told["engines_died"]) == ("ok", None, 1)
    served.side.until(lambda: len(served.side.rows()) == 9)
    after = served.post("The cat").json()["choices"][0]["message"]["content"]
    assert after == before
    rows = served.side.rows()
    assert Counter(row.finish_reason == "error" for row in rows) == {False: 2, True: 8}
    assert len({row.id for row in rows}) == len(rows) == 10


def test_a_stream_in_flight_ends_with_the_error_and_its_row_holds_what_came(served):
    url = served.side.url + CHAT
    body = {"model": "escultor", "messages": [{"role": "user", "content": "The cat"}], "max_tokens": 200}
    body |= {"stream": True, "temperature": 2.0, "seed": 1}
    with httpx2.stream("POST", url, json=body, timeout=60) as answer:
        lines = answer.iter_lines()
        text, said = "", {}
        while not text:
            line = next(lines)
            if line.startswith("data: "):
                said = json.loads(line[6:])
                text += said["choices"][0]["delta"].get("content", "")
        served.kill()[1].set()
        for line in lines:
            if line.startswith("data: "):
                said = json.loads(line[6:])
                text += "" if "error" in said else said["choices"][0]["delta"].get("content", "")
    assert said["error"]["code"] == "engine_down"
    served.side.until(lambda: served.side.rows())
    (row,) = served.side.rows()
    assert (row.finish_reason, row.answer) == ("error", text)


def test_health_reports_the_outage_and_the_memory_of_the_dead_engine_is_freed(served, monkeypatch):
    # The test runner keeps what is logged, faults and all that they were raised through.
    monkeypatch.setattr(logging.getLogger("escultor"), "propagate", False)
    first, opener, may = served.opened[0], engine_loading._open, threading.Event()

    def slowly(*words):
        may.wait(30)
        return opener(*words)

    monkeypatch.setattr(engine_loading, "_open", slowly)
    served.kill()[1].set()
    assert served.post("The cat").status_code == 503
    served.side.until(lambda: served.health()["engines_died"] == 1)
    told = served.health()
    assert told["status"] == "degraded"
    assert "is being restarted" in told["problem"]
    assert served.post("The cat").json()["error"]["code"] == "engine_down"
    served.side.until(lambda: first() is None)  # before the next is there
    assert not any(t.name == "escultor-decoding" for t in threading.enumerate())
    may.set()
    served.side.until(lambda: served.health()["status"] == "ok")
    assert served.post("The cat").status_code == 200
    served.kill()[1].set()
    assert served.post("The cat").status_code == 503
    served.side.until(lambda: served.health()["engines_died"] == 2)
    served.side.until(lambda: "it stays down" in (served.health()["problem"] or ""))
    assert served.health()["engines_reopened"] == 1
    assert "restart the server" in served.post("The cat").json()["error"]["message"]


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft asks
def test_adapters_of_a_base_that_died_share_the_restarted_base(tmp_path, base, served):
    pytest.importorskip("peft")
    store = served.gateway.store
    folders = [adapter(base, tmp_path / f"a{n}", n) for n in range(2)]
    promoted = []
    for folder in folders:
        promoted.append(api.promote(store, folder, "better")[0].id)
        served.side.until(lambda: served.health()["champion"] == promoted[-1])
    before = [served.post("The cat", model=name).json()["choices"] for name in promoted]
    served.kill()[1].set()
    served.post("The cat")
    served.side.until(lambda: served.health()["engines_reopened"] == 2)
    assert len(served.opened) == 2  # one base for both
    assert [served.post("The cat", model=name).json()["choices"] for name in promoted] == before
