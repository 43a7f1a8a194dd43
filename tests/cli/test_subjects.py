"""`subjects`: from a name to a hash to an erasure that lists what is left to do."""

from escultor.serve.subjects import SubjectHasher
from escultor.store import open_store
from escultor.types import Feedback, Rating


def test_a_person_is_erased_by_hash_and_the_request_stays(cli, tmp_path):
    url = str(tmp_path / "store")
    with open_store(url) as store:
        subject = SubjectHasher.for_store(store.root).subject("ann@example.org")
        for id, who in (("r", subject), ("s", "x")):
            store.log.append(Rating(id, 1.0, "a", who, "thumb", True))
    told = cli("subjects", "hash", "ann@example.org", "--store", url, "--json")
    assert told.data == {"subject": subject}
    erased = cli("subjects", "erase", subject, "--by", "ann", "--yes", "--store", url, "--json")
    assert erased.code == 0
    assert erased.data["counts"] == {"interaction": 0, "feedback": 1, "feedback of others": 0}
    assert (erased.data["datasets"], erased.data["checkpoints"]) == ([], [])
    listed = cli("subjects", "erasures", "--store", url, "--json").data["erasures"]
    assert [(e["subject"], e["by"]) for e in listed] == [(subject, "ann")]
    with open_store(url) as store:
        assert [event.id for _, event in store.log.read(Feedback)] == ["s"]


def test_what_is_no_hash_and_what_is_not_confirmed_is_not_erased(cli, tmp_path):
    url = str(tmp_path / "store")
    open_store(url).close()
    refused = cli("subjects", "erase", "ann", "--yes", "--store", url)
    assert refused.code == 2
    assert "escultor subjects hash NAME" in refused.err
    assert cli("subjects", "erase", "0" * 32, "--store", url).code != 0
