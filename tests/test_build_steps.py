"""The file in which a codespace's agent tells the last steps of its build."""

import json

import pytest

from codespace_kernels.build_steps import FAILED, RUNNING, SUCCEEDED, BuildStep, follow_build, read_steps
from codespace_kernels.connection import CompletedCommand


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"steps": null}', b'{"steps": ["x"]}', b'{"other": 1}', b"\xff"])
def test_what_is_no_list_of_steps_has_none(text):
    assert read_steps(text) == []


def test_steps():
    text = b'{"steps": [{"name": "postCreateCommand", "status": "Succeeded"}, {}]}'
    assert read_steps(text) == [BuildStep("postCreateCommand", SUCCEEDED), BuildStep("", "")]


class Answers:
    """The one method of a connection that is used; what the command prints is written down here."""

    def __init__(self, *texts):
        self.texts = list(texts)

    async def run(self, command):
        return CompletedCommand(0, self.texts.pop(0).encode() if self.texts else b"", b"")


def output(**steps):
    return json.dumps({"steps": [{"name": name, "status": status} for name, status in steps.items()]})


async def test_each_status_is_told_once_and_two_quiet_looks_end_it():
    connection = Answers(
        output(a=RUNNING), output(a=RUNNING)[:20], output(a=SUCCEEDED, b=RUNNING), output(a=SUCCEEDED, b=FAILED)
    )
    seen = [step async for step in follow_build(connection, pause=0.001)]
    assert seen == [("a", RUNNING), ("a", SUCCEEDED), ("b", RUNNING), ("b", FAILED)]
    assert not connection.texts
