import pickle

import pytest

from escultor import errors
from escultor.errors import EscultorError, format_message

EVERY = sorted(
    (c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, EscultorError)),
    key=lambda c: c.__name__,
)


@pytest.mark.parametrize("kind", EVERY)
def test_every_error_survives_a_process_border(kind):
    for arguments in (("what",), ("what", 3, ["a", "b"], "do this")):
        error = kind(*arguments)
        again = pickle.loads(pickle.dumps(error))  # noqa: S301
        assert type(again) is kind
        assert str(again) == str(error)
        assert (again.what, again.got, again.allowed, again.remedy) == (
            error.what,
            error.got,
            error.allowed,
            error.remedy,
        )


def test_a_message_says_what_got_allowed_and_remedy():
    error = errors.DataError("the row is no object", "7", "an object", "write one object a line")
    assert str(error) == ("the row is no object; got: 7; allowed: an object; remedy: write one object a line")
    assert format_message("what") == "what"
    assert format_message("what", 0, "", None) == "what; got: 0; allowed: "


@pytest.mark.parametrize("kind", EVERY)
def test_wrong_input_and_a_place_that_takes_nothing_leave_with_2_and_a_fault_with_1(kind):
    wrong_input = issubclass(kind, errors.InputError)
    assert kind.exit_code == (2 if wrong_input or kind is errors.LocationError else 1)
    assert issubclass(kind, ValueError) == wrong_input
    assert issubclass(kind, RuntimeError) == issubclass(kind, errors.FaultError)


def test_one_clause_catches_them_all():
    assert len(EVERY) >= 8
    assert all(issubclass(kind, EscultorError) for kind in EVERY)


def test_the_drawn_tree_is_that_of_the_classes():
    drawn, path = {}, []
    for line in (errors.__doc__ or "").splitlines():
        if line and (bare := line.lstrip(" │├└─")).split(maxsplit=1)[0] in vars(errors):
            depth, name = (len(line) - len(bare)) // 4, bare.split(maxsplit=1)[0]
            path[depth:] = [name]
            drawn[name] = path[depth - 1] if depth else "Exception"
    assert drawn == {kind.__name__: kind.__bases__[0].__name__ for kind in EVERY}
