"""What is streamed, joined, is the text of the answer; half characters and stop texts never show."""

from hypothesis import example, given, settings
from hypothesis import strategies as st
from tiny import tokenizer, tokenizer_like

from escultor.text.chat import ChatTemplate
from escultor.text.streaming import TextStream, TokenBytes
from escultor.types import Message, Role

OWN = tokenizer()
PLAIN = ChatTemplate(OWN)
TEXT = st.text(st.sampled_from([*"abT .cat\n", "é", "漢", "🙂", "\u200d"]), max_size=30)


def streamed(ids, stop=(), own=OWN, lead=""):
    stream = TextStream(own, stop, lead)
    pieces = []
    for token in ids:
        pieces.append(stream.feed(token))
        if stream.stopped:
            break
    return [*pieces, stream.finish()], stream


@given(TEXT)
@settings(deadline=None)
def test_pieces_joined_are_the_text_and_never_end_within_a_character(text):
    ids = PLAIN.text(text)
    pieces, _ = streamed(ids)
    assert "".join(piece.text for piece in pieces) == text
    assert all("\ufffd" not in piece.text for piece in pieces)
    assert pieces[-1].tokens == len(ids)


@given(st.lists(st.integers(6, 299), max_size=40))
@settings(deadline=None)
def test_random_tokens_stream_as_the_tokenizer_decodes_them(ids):
    pieces, _ = streamed(ids)
    assert "".join(piece.text for piece in pieces) == OWN.decode(ids, skip_special_tokens=True)


@given(st.lists(st.integers(6, 299), max_size=40))
@settings(deadline=None)
def test_held_tokens_give_the_same_text_as_fed_ones(ids):
    held = TextStream(OWN)
    for id in ids:
        held.hold(id)
    assert held.finish().text == "".join(piece.text for piece in streamed(ids)[0])


@example(".aa", ["a", ".aa"])
@given(TEXT, st.lists(st.text(st.sampled_from("ab.ct 🙂"), min_size=1, max_size=4), min_size=1, max_size=3))
@settings(deadline=None)
def test_an_answer_ends_before_the_first_stop_text_wherever_tokens_end(text, stop):
    pieces, stream = streamed(PLAIN.text(text), stop)
    first = min((at for one in stop if (at := text.find(one)) >= 0), default=len(text))
    assert "".join(piece.text for piece in pieces) == text[:first]
    assert stream.stopped == (first < len(text))


def test_a_possible_start_of_a_stop_text_is_held_back_until_it_is_none():
    ids = [id for sign in "a.b." for id in PLAIN.text(sign)]
    pieces, _ = streamed(ids, (".b!",))
    assert [piece.text for piece in pieces] == ["a", "", "", ".b", "."]
    assert [piece.tokens for piece in pieces] == [1, 1, 1, 3, 4]


def test_the_space_that_a_template_writes_before_an_answer_is_not_part_of_it():
    family = tokenizer_like("mistral")
    chat = ChatTemplate(family)
    assert chat.lead == " "
    ids = chat.example((Message(Role.USER, "a"),), "The cat runs").response[:-1]
    pieces, _ = streamed(ids, own=family, lead=chat.lead)
    assert "".join(piece.text for piece in pieces) == "The cat runs" == chat.decode(ids)


@given(TEXT)
@settings(deadline=None)
def test_the_bytes_of_tokens_joined_are_those_of_the_text(text):
    table = TokenBytes(OWN)
    assert b"".join(map(table.get, PLAIN.text(text))) == text.encode()


def test_bytes_of_vocabularies_that_are_not_byte_level():
    class Pieces:
        backend_tokenizer = None

        def convert_ids_to_tokens(self, token):
            return ("\u2581the", "<0xE6>", "<|end|>")[token]

    assert [TokenBytes(Pieces()).get(i) for i in range(3)] == [b" the", b"\xe6", b"<|end|>"]
