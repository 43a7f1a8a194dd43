"""Adapters served over one base: each answers as its merged model, and the base is loaded once."""

import asyncio

import httpx2
import pytest
from adapted import adapter
from gateway_side import Fake, running
from tiny import llama

from escultor.config import Serve
from escultor.cycle import api
from escultor.errors import ModelError
from escultor.model.folders import save
from escultor.model.generate import generate
from escultor.model.load import load
from escultor.serve import engine_loading
from escultor.serve.engine_loading import EngineSource, SharedEngines, engine_loader
from escultor.serve.gateway.gateway import Gateway
from escultor.store import open_store
from escultor.types import Message, Role, Sampling

pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft asks
SAID = "The cat runs"


# --- what is loaded, and when it is freed -----------------------------------------------------


class Below(Fake):
    """An engine that adapters can be put beside."""

    async def with_adapter(self, version, folder):
        if folder is None:
            raise ModelError("it does not fit")
        assert not self.closed
        return Below(version)


def below_one_base():
    """Engines of which every folder but `base` is an adapter of `base`, and those that were opened whole."""
    opened = []

    async def whole(folder, version):
        opened.append(Below(version))
        return opened[-1]

    return SharedEngines(whole, lambda folder: None if folder == "base" else ("base", "base")), opened


def test_a_version_is_loaded_once_and_a_base_freed_after_the_last_of_its_adapters():
    shared, opened = below_one_base()

    async def work():
        one, two = await shared.acquire("a1", "a"), await shared.acquire("a2", "a")
        again = await shared.acquire("a1", "a")
        (base,) = opened
        own = await shared.acquire("base", "base")
        assert (len(opened), own.version, two.version) == (1, "base", "a2")
        adapter = one.engine
        await one.close()
        await one.close()  # a second time is no second holder
        assert not adapter.closed
        await again.close()
        assert adapter.closed
        await own.close()
        with pytest.raises(ModelError):
            await shared.acquire("a3", None)
        assert not base.closed
        await two.close()
        assert base.closed
        with pytest.raises(ModelError):
            await shared.acquire("a3", None)
        assert [engine.closed for engine in opened] == [True, True]  # loaded for it, and freed
        assert not (await shared.acquire("base", "base")).engine.closed

    asyncio.run(work())


def test_an_adapter_that_cannot_be_closed_holds_its_base_no_longer():
    shared, opened = below_one_base()

    async def work():
        adapter = await shared.acquire("a1", "a")
        adapter.engine.under_way = 1  # which it refuses to be closed with
        with pytest.raises(AssertionError):
            await adapter.close()
        assert opened[0].closed
        assert (await shared.acquire("base", "base")).engine is opened[1]

    asyncio.run(work())


# --- as it is served --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A base and two adapters of it, and what each says when whole."""
    folder = tmp_path_factory.mktemp("models")
    save(llama(), folder / "base")
    folders = [folder / "base", *(adapter(folder / "base", folder / f"a{n}", n) for n in range(2))]
    said = []
    for each in folders:
        whole = load(str(each))
        prompt = whole.chat.prompt((Message(Role.USER, SAID),))
        said.append(generate(whole, [prompt], Sampling(1.0, 1.0, 12, seed=3))[0].text)
    assert len(set(said)) == 3
    return folders, said


def test_champions_that_are_adapters_follow_one_another_over_one_base(tmp_path, models, monkeypatch):
    (base, *adapters), said = models
    loaded, open_model = [], engine_loading._open
    monkeypatch.setattr(engine_loading, "_open", lambda *words: loaded.append(words[1]) or open_model(*words))
    with open_store(str(tmp_path / "store")) as store:
        first, _ = api.promote(store, adapters[0], "the first")
        load_version, default, fixed = engine_loader(store, EngineSource(base), Serve())
        gateway = Gateway(store, Serve(follow_s=0.05), load_version, default, fixed=fixed)
        with running(gateway) as side:
            body = {"messages": [{"role": "user", "content": SAID}], "max_tokens": 12}
            body |= {"temperature": 1, "seed": 3}

            def answer(model):
                told = httpx2.post(f"{side.url}/v1/chat/completions", json={**body, "model": model})
                return told.json()["choices"][0]["message"]["content"]

            assert answer("champion") == said[1]
            for folder, expected in ((adapters[1], said[2]), (base, said[0])):
                checkpoint, _ = api.promote(store, folder, "better")
                side.until(lambda now=checkpoint: gateway.deployments.active.champion.version == now.id)
                assert answer("champion") == expected
            assert answer("previous") == said[2]
        assert loaded == [first.parents[0]] == [default.aliases["champion"]]


def test_an_engine_that_knows_no_adapters_says_so(tmp_path, models):
    (_, one, _), _ = models
    with open_store(str(tmp_path / "store")) as store:
        load_version, default, _ = engine_loader(
            store, EngineSource(one, fixed=True), Serve(engine="ctranslate2")
        )
        with pytest.raises(ModelError, match="escultor merge"):
            asyncio.run(load_version(default.aliases["champion"]))
