"""The load client of the benchmarks: an answer is an answer wherever its bytes are cut."""

import asyncio
import sys
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))

from load import Connection


class Nowhere(asyncio.Transport):
    """What is sent over it reaches nobody."""

    def write(self, data):
        pass


def in_chunks(pieces):
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%b0\r\n\r\n" % chunks


def with_a_length(pieces):
    body = b"".join(pieces)
    return b"HTTP/1.1 503 Busy\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


PIECES = st.lists(st.binary(min_size=1, max_size=40), max_size=5)
FORMS = st.sampled_from([in_chunks, with_a_length])


@given(st.lists(st.tuples(PIECES, FORMS), min_size=1, max_size=3), st.integers(1, 60))
def test_an_answer_ends_with_its_last_byte_and_not_before(answers, size):
    async def ask():
        connection = Connection(lambda _: None)
        connection.connection_made(Nowhere())
        for pieces, form in answers:
            answered, data = connection.ask(b"", 0.0), form(pieces)
            for at in range(0, len(data), size):
                assert not answered.done()
                connection.data_received(data[at : at + size])
            reply = answered.result()
            assert reply.body == b"".join(pieces)
            assert reply.status == (200 if form is in_chunks else 503)

    asyncio.run(ask())
