import inspect

import pytest

from codespace_kernels import errors


def tree():
    return [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, errors.CodespaceKernelsError)]


def test_every_name_ends_in_error_but_for_vs_codes_sake():
    # VS Code shows the last line of stderr that contains "Error"; the launcher begins that line with the class name.
    assert {c.__name__ for c in tree() if not c.__name__.endswith("Error")} == set()


@pytest.mark.parametrize("cls", tree(), ids=lambda c: c.__name__)
def test_crosses_a_process_border(cls):
    again = errors.error_from_json(cls("what happened").to_json())
    assert (type(again), str(again)) == (cls, "what happened")


def test_unknown_type_is_the_root():
    again = errors.error_from_json({"type": "FutureError", "message": "x"})
    assert type(again) is errors.CodespaceKernelsError


def test_a_wait_says_what_for_and_how_long():
    assert str(errors.WaitTimeoutError.after("the sun", 5, "Sleep.")) == "Gave up after 5 s waiting for the sun. Sleep."
