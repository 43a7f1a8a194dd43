"""Deployments: a sticky split in the configured shares, switches that drop no request, warm rollbacks."""

import asyncio

import pytest
from gateway_side import Fake, deployment
from scipy.stats import binom

from escultor.errors import ModelError
from escultor.serve.deployments import Deployments, position
from escultor.serve.protocol import GenerationRequest
from escultor.serve.restart_policy import RestartPolicy
from escultor.serve.wire.errors import ApiError
from escultor.types import Sampling

ASK = GenerationRequest("x", Sampling())


class Side:
    """Deployments over a log that a test sets, and engines that it can break."""

    def __init__(self, first=None):
        self.holds, self.loaded, self.broken, self.now = first, {}, set(), 0.0
        clock = lambda: self.now  # noqa: E731
        self.deployments = Deployments(
            lambda: self.holds, self.load, deployment(), ("escultor",), RestartPolicy(3, 60.0, clock), clock
        )

    async def load(self, version):
        await asyncio.sleep(0)
        if version in self.broken:
            raise ModelError(f"{version} is broken")
        self.loaded[version] = Fake(version)
        return self.loaded[version]

    def pick(self, model="escultor", subject=None, draw=0.0):
        return self.deployments.pick(model, subject, draw)


def started(first=None):
    """Run a test's coroutine on started deployments."""

    def run(test):
        async def whole():
            side = Side(first)
            await side.deployments.start()
            await test(side)
            await side.deployments.close()
            assert all(engine.closed for engine in side.loaded.values())

        asyncio.run(whole())

    return run


SUBJECTS = [f"subject-{n}" for n in range(10_000)]


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5])
def test_ten_thousand_subjects_split_as_ordered_and_stay_where_they_are(share):
    @started(deployment("v1", "v2", share))
    async def _(side):
        first = [side.pick(subject=s).arm for s in SUBJECTS]
        count = first.count("candidate")
        # Two-sided odds of 1 in 10,000 that a fair split would fail here.
        low, high = binom.ppf([5e-5, 1 - 5e-5], len(SUBJECTS), share)
        assert low <= count <= high
        assert [side.pick(subject=s, draw=0.999).arm for s in SUBJECTS] == first
        assert {side.pick(subject=s).propensity for s in SUBJECTS} == {share, 1 - share}


def test_a_share_that_grows_keeps_its_subjects():
    def chosen(share):
        found = set()

        @started(deployment("v1", "v2", share))
        async def _(side):
            found.update(s for s in SUBJECTS if side.pick(subject=s).arm == "candidate")

        return found

    assert chosen(0.05) < chosen(0.2) < chosen(0.6)


def test_another_candidate_draws_independently():
    both = sum(position(s, ["v2"]) < 0.1 and position(s, ["v3"]) < 0.1 for s in SUBJECTS)
    low, high = binom.ppf([5e-5, 1 - 5e-5], len(SUBJECTS), 0.01)
    assert low <= both <= high


def test_a_request_without_a_user_is_assigned_by_the_draw():
    @started(deployment("v1", "v2", 0.25))
    async def _(side):
        draws = (0.0, 0.24, 0.26, 0.99)
        assert [side.pick(draw=d).arm for d in draws] == ["candidate"] * 2 + ["champion"] * 2


def test_names_aliases_and_versions_are_known_and_others_are_not():
    @started(deployment("v1", "v2", 0.25, previous="v0"))
    async def _(side):
        assert side.pick("candidate").handle.version == "v2"
        assert (side.pick("v0").arm, side.pick("v0").propensity) == ("previous", 1.0)
        assert side.pick("champion", draw=0.1).handle.version == "v2"  # the champion's place, so its split
        assert side.deployments.models().keys() == {
            *("champion", "escultor", "candidate", "previous"),
            *("v0", "v1", "v2"),
        }
        with pytest.raises(ApiError) as refused:
            side.pick("gpt-4")
        assert refused.value.status == 404
        assert "escultor" in refused.value.message


def test_switching_under_load_drops_no_request_and_frees_the_old_engine_after_its_last():
    @started(deployment("v1", id="d1"))
    async def _(side):
        answered = []

        async def client(n):
            for _ in range(40):
                pick = side.pick()
                with pick.handle.in_use() as engine:
                    engine.gate = None
                    async for _ in engine.stream(ASK):
                        await asyncio.sleep(0.0005)
                answered.append(pick.handle.version)

        async def switcher():
            for n in range(2, 8):
                await asyncio.sleep(0.01)
                side.holds = deployment(f"v{n}", id=f"d{n}")
                assert await side.deployments.follow()

        await asyncio.gather(*(client(n) for n in range(8)), switcher())
        assert len(answered) == 320
        assert {"v1", "v7"} < set(answered)
        while {v for v, engine in side.loaded.items() if not engine.closed} != {"v7"}:
            await asyncio.sleep(0.01)


def test_previous_stays_warm_and_a_rollback_loads_nothing():
    @started(deployment("v1", id="d1"))
    async def _(side):
        side.holds = deployment("v2", previous="v1", id="d2")
        await side.deployments.follow()
        before = dict(side.loaded)
        side.holds = deployment("v1", id="d3")
        assert await side.deployments.follow()
        assert side.pick().handle.engine is before["v1"]
        assert side.loaded == before


def test_a_champion_that_cannot_be_loaded_leaves_the_old_one_answering_and_is_tried_again():
    @started(deployment("v1", id="d1"))
    async def _(side):
        side.broken = {"v2"}
        side.holds = deployment("v2", id="d2")
        assert not await side.deployments.follow()
        assert side.pick().handle.version == "v1"
        assert "v2 is broken" in side.deployments.problem
        side.broken = set()
        assert not await side.deployments.follow()  # not at once again
        side.now = 2.0
        assert await side.deployments.follow()
        assert (side.pick().handle.version, side.deployments.problem) == ("v2", None)


def test_a_candidate_that_cannot_be_loaded_gives_its_share_to_the_champion():
    @started(deployment("v1", "v2", 0.5, id="d1"))
    async def _(side):
        assert side.pick(draw=0.1).arm == "candidate"
        side.broken = {"v3"}
        side.holds = deployment("v1", "v3", 0.5, id="d2")
        assert await side.deployments.follow()
        pick = side.pick(draw=0.1)
        assert (pick.handle.version, pick.propensity) == ("v1", 1.0)
        side.broken, side.now = set(), 100.0
        assert await side.deployments.follow()
        assert side.pick(draw=0.1).handle.version == "v3"


def test_a_start_without_a_champion_that_loads_fails():
    async def whole():
        side = Side(deployment("v1"))
        side.broken = {"v1"}
        with pytest.raises(ModelError):
            await side.deployments.start()

    asyncio.run(whole())


def test_engines_that_a_cancelled_switch_loaded_are_closed():
    @started(deployment("v1"))
    async def _(side):
        reached, may, load = asyncio.Event(), asyncio.Event(), side.deployments._load

        async def slowly(version):
            if version == "v3":
                reached.set()
                await may.wait()
            return await load(version)

        side.deployments._load = slowly
        side.holds = deployment("v2", "v3", id="dep-2")
        following = asyncio.create_task(side.deployments.follow())
        await reached.wait()
        following.cancel()
        with pytest.raises(asyncio.CancelledError):
            await following
        assert side.pick().handle.version == "v1"
        may.set()
        await asyncio.gather(*side.deployments._retiring)
        assert side.loaded["v2"].closed
        assert side.loaded["v3"].closed
        assert not side.loaded["v1"].closed


def test_a_log_that_cannot_be_read_changes_nothing():
    @started(deployment("v1", id="d1"))
    async def _(side):
        side.deployments._read = lambda: (_ for _ in ()).throw(ModelError("the log is away"))
        assert not await side.deployments.follow()
        assert "the log is away" in side.deployments.problem
        assert side.pick().handle.version == "v1"
