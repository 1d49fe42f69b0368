"""What is taken out of a text, and what stays."""

import pytest

from codespace_kernels.doctor.redaction import Redactor

CANARY = "c4nary"


@pytest.fixture
def redactor():
    made = Redactor()
    made.hide_repository("octo-c4nary/repo-c4nary")
    made.hide("codespace", ["fuzzy-c4nary-x7", "Fuzzy C4nary"])
    made.hide("home", ["/home/c4nary"])
    made.hide("user", ["c4nary", "root"])
    made.hide("owner", ["Straße-C4nary"])
    return made


@pytest.mark.parametrize(
    "text",
    [
        "ghp_c4naryABC", "gho_c4nary", "ghu_c4nary", "ghs_c4nary", "ghr_c4nary", "github_pat_11c4nary_x",
        "got ghp_c4nary.", "(gho_c4nary)", "GH_TOKEN=x-c4nary", "secret = 'my c4nary secret'",
        "eyJhbGciOic4nary.eyJzdWIic4nary.sig-c4nary", "eyJhbGciOic4nary.eyJzdWIic4nary",
        "Authorization: Bearer a-c4nary", "authorization=token a-c4nary", '"Authorization": "Tunnel x c4nary"',
        "{'authorization': 'Basic c4nary'}", "Proxy-Authorization: Basic eDpjNG5hcnk c4nary",
        "X-GitHub-Token: x-c4nary", "Set-Cookie: a=c4nary; b=c4nary", "Bearer xyzc4nary12345", "Tunnel abc-c4nary",
        "http://127.0.0.1:8888/lab?token=x-c4nary&a=1", "https://h/p#access_token=x-c4nary", "?code=x-c4nary",
        "http://u-c4nary:p-c4nary@proxy:1", "http://u:p@c4nary@proxy:1", "wss://p-c4nary@relay/x",
        '{"token": "x-c4nary"}', r'{\"token\": \"x-c4nary\"}', 'password="x-c4nary', "API_KEY=x-c4nary",
        "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAAc4nary\n-----END OPENSSH PRIVATE KEY-----",
        "-----BEGIN RSA PRIVATE KEY-----\nAAAAc4nary and then it was cut",
        "me.c4nary@mail.c4nary.example", "octo-c4nary/repo-c4nary", "OCTO-C4NARY", "cs-octo-c4nary-repo-c4nary-python3",
        "https://fuzzy-c4nary-x7-8888.app.github.dev/", "named 'Fuzzy C4nary'", "/home/c4nary/notebooks", "c4nary@host",
        "Straße-C4nary",
    ],
)  # fmt: skip
def test_is_taken_out(redactor, text):
    cleaned = redactor.clean(f"before {text}\nafter")
    assert CANARY not in cleaned.lower()
    assert cleaned.startswith("before ")
    assert "<" in cleaned


@pytest.mark.parametrize(
    "address", ["203.0.113.7", "203.0.113.7:443", "[2001:db8::7]:443", "fe80::7", "::ffff:203.0.113.7"]
)
def test_addresses_are_taken_out(address):
    cleaned = Redactor().clean(f"to {address}, and:{address}")
    assert "203" not in cleaned
    assert ":7" not in cleaned
    assert cleaned.count("<address-1>") == 2


@pytest.mark.parametrize(
    "text",
    [
        "a token of an OAuth app, from `gh auth token`; the tunnel management API; basic Linux",
        "Token: a classic personal access token",
        "127.0.0.1:8080, ::1 and 0.0.0.0 are everybody's, 12:30:45 and 1.2.3 are no addresses",
        "Python 3.11.7, jupyter_server 2.21.1, SHA256:abc, std::string, 2026-11-23 16:00:00,123",
        "the root user; fuzzy-c4naryx7 is another word",
        "connection.tunnelProperties.connectAccessToken: text",
    ],
)
def test_stays(text):
    made = Redactor()
    made.hide("codespace", ["fuzzy-c4nary"])
    made.hide("user", ["root", "", " "])
    assert made.clean(text) == text


def test_placeholders_are_stable():
    made = Redactor()
    made.hide_repository("octo/one")
    made.hide_repository("octo/two")
    made.hide("owner", ["other", "OCTO"])
    text = "octo/one octo/two Octo other 192.0.2.1 192.0.2.2 192.0.2.1"
    assert made.clean(text) == (
        "<owner-1>/<repo-1> <owner-1>/<repo-2> <owner-1> <owner-2> <address-1> <address-2> <address-1>"
    )


def test_a_name_within_a_secret_does_not_save_it():
    made = Redactor()
    made.hide("repo", ["token", "bearer", "authorization"])
    assert "c4nary" not in made.clean("?token=c4nary1 Bearer c4nary12345 Authorization: x c4nary")
