"""What kernels are asked to do, and what must come of it, message for message."""

from __future__ import annotations

import dataclasses
import hashlib
import random
from collections.abc import Callable, Iterable

Item = tuple[str, str]
"""One thing that a front end shows: its kind (`stdout`, `display`, `comm`, …), and the text or a digest of it."""

SET_UP = """
import hashlib, random, sys, time
from comm import create_comm, get_comm_manager
from IPython.display import display, update_display

def text(seed, size):
    return random.Random(seed).randbytes(size // 2).hex()

def show(seed, size):
    display({"application/x-chaos": text(seed, size)}, raw=True)

def talk(seed, count, size):
    dice = random.Random(seed)
    comm = create_comm(target_name="front", data={"number": 0})
    for number in range(1, count):
        comm.send({"number": number}, buffers=[dice.randbytes(size), b""])
    comm.close({"number": count})

def opened(comm, message):
    @comm.on_msg
    def received(message):
        buffers = [bytes(buffer)[::-1] for buffer in message["buffers"]]
        comm.send({"number": message["content"]["data"]["number"]}, buffers=buffers)

get_comm_manager().register_target("chaos", opened)
"""
"""The first cell of each kernel."""


@dataclasses.dataclass
class Cell:
    """Code and what it makes.

    Attributes:
        kind: What it tries, for the counts.
        code: What is run.
        shown: All that a front end shows of it, in order; texts of one stream that follow each other are one.
        answers: What the front end answers its questions.
        status: Of the reply.
    """

    kind: str
    code: str
    shown: list[Item]
    answers: list[str] = dataclasses.field(default_factory=list)
    status: str = "ok"


def digest(*parts: bytes) -> str:
    """Give the sum of some bytes, and how many they were."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(part)
    return f"{sum(map(len, parts))} bytes {whole.hexdigest()[:16]}"


def made(kind: str, parts: Iterable[bytes], number: int = 0) -> Item:
    """Describe something large by its digest."""
    return kind, f"{number} {digest(*parts)}"


def merged(items: Iterable[Item]) -> list[Item]:
    """Join texts of a stream that follow each other: a kernel may send them in any pieces."""
    joined: list[Item] = []
    texts: list[str] = []
    for kind, text in items:
        if kind not in ("stdout", "stderr"):
            _close(joined, texts)
            joined.append((kind, text))
            continue
        if not joined or joined[-1][0] != kind or not texts:
            _close(joined, texts)
            joined.append((kind, ""))
        texts.append(text)
    _close(joined, texts)
    return joined


def _close(joined: list[Item], texts: list[str]) -> None:
    if texts:
        joined[-1] = joined[-1][0], "".join(texts)
        texts.clear()


def lines(dice: random.Random) -> Cell:
    """Lines at a rate between ten a second and as fast as it goes, each a message of its own."""
    rate = dice.choice((10, 30, 100, 300, 1000))
    count = min(int(rate * dice.uniform(0.3, 3.0)) + 1, 600)
    mark = dice.randrange(10**6)
    code = f"for i in range({count}):\n    print({mark}, i, flush=True)\n    time.sleep({1 / rate})"
    return Cell("lines", code, [("stdout", "".join(f"{mark} {i}\n" for i in range(count)))])


def flood(dice: random.Random) -> Cell:
    """Thousands of lines at once, as messages of their own or as the kernel joins them."""
    own = dice.random() < 0.5
    count = dice.randrange(500, 3000) if own else dice.randrange(2000, 20_000)
    mark = dice.randrange(10**6)
    code = f"for i in range({count}): print({mark}, i, flush={own})"
    return Cell("flood", code, [("stdout", "".join(f"{mark} {i}\n" for i in range(count)))])


def long_lines(dice: random.Random) -> Cell:
    """Lines that need several frames of the link each."""
    count, length, mark = dice.randrange(2, 20), dice.randrange(10_000, 200_000), dice.randrange(10**6)
    code = f"for i in range({count}): print({mark}, i, 'x' * {length}, flush=True)"
    return Cell("long lines", code, [("stdout", "".join(f"{mark} {i} {'x' * length}\n" for i in range(count)))])


def streams(dice: random.Random) -> Cell:
    """Both streams in turns, and a result."""
    count, mark = dice.randrange(5, 80), dice.randrange(10**6)
    code = f"for i in range({count}):\n    print({mark}, i, file=(sys.stdout, sys.stderr)[i % 2], flush=True)\n{mark}"
    shown = [(("stdout", "stderr")[i % 2], f"{mark} {i}\n") for i in range(count)]
    return Cell("streams", code, [*shown, ("result", str(mark))])


def displays(dice: random.Random) -> Cell:
    """Pictures of up to 10 MB."""
    code, shown = "", []
    for number in range(dice.randrange(1, 4)):
        seed, size = dice.randrange(10**9), dice.choice((2_000, 200_000, 1_000_000, 3_000_000, 10_000_000))
        size = size if number == 0 else min(size, 1_000_000)
        code += f"show({seed}, {size}); print({number})\n"
        shown += [made("display", [random.Random(seed).randbytes(size // 2).hex().encode()]), ("stdout", f"{number}\n")]
    return Cell("displays", code, shown)


def updates(dice: random.Random) -> Cell:
    """A display that is replaced, as a progress bar is."""
    count, mark = dice.randrange(5, 150), f"d{dice.randrange(10**9)}"
    code = (
        f"display({{'text/plain': '0'}}, raw=True, display_id='{mark}')\n"
        f"for i in range(1, {count}): update_display({{'text/plain': str(i)}}, raw=True, display_id='{mark}')"
    )
    return Cell("updates", code, [("display", "0"), *(("update", str(i)) for i in range(1, count))])


def questions(dice: random.Random) -> Cell:
    """Questions, and lines with their answers."""
    mark, count = dice.randrange(10**6), dice.randrange(1, 5)
    answers = [f"{mark} answer {i} {'y' * dice.choice((1, 1, 5000))}" for i in range(count)]
    code = f"for i in range({count}): print('heard', i, input(f'{mark} question {{i}}? '))"
    shown = [
        item
        for i, answer in enumerate(answers)
        for item in (("question", f"{mark} question {i}? "), ("stdout", f"heard {i} {answer}\n"))
    ]
    return Cell("questions", code, shown, answers)


def comms(dice: random.Random) -> Cell:
    """A comm that the kernel opens, with binary buffers."""
    seed, count, size = dice.randrange(10**9), dice.randrange(2, 20), dice.choice((10, 5_000, 300_000))
    numbers = random.Random(seed)
    shown = [made("comm_open", [])]
    shown += [made("comm_msg", [numbers.randbytes(size), b""], number) for number in range(1, count)]
    return Cell("comms", f"talk({seed}, {count}, {size})", [*shown, made("comm_close", [], count)])


def errors(dice: random.Random) -> Cell:
    """Lines, and an error."""
    count, mark = dice.randrange(1, 200), dice.randrange(10**6)
    code = f"for i in range({count}): print({mark}, i)\nraise RuntimeError('{mark} was wanted')"
    shown = [("stdout", "".join(f"{mark} {i}\n" for i in range(count))), ("error", f"RuntimeError: {mark} was wanted")]
    return Cell("errors", code, shown, status="error")


KINDS: list[Callable[[random.Random], Cell]] = [
    lines, lines, lines, flood, long_lines, streams, displays, updates, questions, questions, comms, errors,
]  # fmt: skip
"""What a kernel is asked to do; what stands here more than once is done more often."""
