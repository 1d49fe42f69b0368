"""The line of a waiting cell is HTML; what it tells of may be named by anybody."""

from __future__ import annotations

from codespace_kernels.bridge.local_messages import LocalMessages
from codespace_kernels.bridge.waiting_line import WaitingLine, WaitingState


def test_what_a_codespace_says_is_text_in_it():
    evil = """<img src=x onerror="alert('x')"> & <script>"""
    published = []
    line = WaitingLine(LocalMessages(), lambda channel, message: published.append(message.content_dict()))
    line.show(b"{}", WaitingState(evil, evil, evil), 1.0)
    (content,) = published
    assert [*content["data"]] == ["text/html"]
    shown = content["data"]["text/html"]
    assert shown.count("&lt;script&gt;") == 3
    assert not set("<>\"'") & set(shown.removeprefix("<div>").removesuffix("</div>"))
