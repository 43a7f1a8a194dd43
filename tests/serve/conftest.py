"""An upstream whose plan each test may change, and a gateway in front of it; one of each for a file."""

import pytest
from forwarding_side import forwarding
from mock_upstream import MockUpstream, serves


@pytest.fixture(scope="module")
def mock():
    with MockUpstream(serves()) as made:
        yield made


@pytest.fixture(scope="module")
def side(mock, tmp_path_factory):
    with forwarding(tmp_path_factory.mktemp("forwarding"), mock) as made:
        yield made
