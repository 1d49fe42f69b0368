from __future__ import annotations

import pytest

from codespace_kernels.errors import SettingsError
from codespace_kernels.jupyter import ServerUrl, parse_server_url
from codespace_kernels.jupyter.url import is_loopback


@pytest.mark.parametrize(
    ("text", "base", "token"),
    [
        ("http://localhost:8888/?token=abc", "http://localhost:8888/", "abc"),
        ("http://localhost:8888", "http://localhost:8888/", ""),
        ("  http://localhost:8888/lab?token=abc \n", "http://localhost:8888/", "abc"),
        ("https://h/base/two/lab/tree/a.ipynb?x=1&token=abc#frag", "https://h/base/two/", "abc"),
        ("https://hub/user/ada/lab/workspaces/auto", "https://hub/user/ada/", ""),
        ("https://hub/user/lab/tree", "https://hub/user/lab/", ""),
        ("http://[::1]:8888/tree/x", "http://[::1]:8888/", ""),
        ("https://name-8888.app.github.dev/lab", "https://name-8888.app.github.dev/", ""),
        ("http://h:1/api/kernels", "http://h:1/", ""),
    ],
)
def test_base_and_token(text, base, token):
    assert parse_server_url(text) == ServerUrl(base, token)


@pytest.mark.parametrize(
    "text", ["", "localhost:8888", "ftp://h/", "http://", "http://h:port/", "http://[x/", "http://a:b@h/"]
)
def test_what_is_no_address(text):
    with pytest.raises(SettingsError):
        parse_server_url(text)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:1/", True),
        ("http://[::1]/", True),
        ("http://localhost:8888/x", True),
        ("https://example.com/", False),
        ("https://localhost.example.com/", False),
    ],
)
def test_is_loopback(url, expected):
    assert is_loopback(url) is expected


def test_no_secret_is_shown():
    assert "s3cret" not in repr(parse_server_url("http://h/?token=s3cret"))
    with pytest.raises(SettingsError) as caught:
        parse_server_url("h:1/?token=s3cret")
    assert "s3cret" not in str(caught.value)


async def test_headers():
    assert await ServerUrl("http://h/", "abc").headers() == {"Authorization": "token abc"}
    assert await ServerUrl("http://h/").headers() == {}
