from __future__ import annotations

import asyncio
import gzip
import time

import httpx
import pytest

from codespace_kernels.errors import BadTokenError, GitHubError, GitHubUnavailableError, RateLimitError
from codespace_kernels.github import Backoff, GitHubClient
from codespace_kernels.target import Account

from .conftest import CANARY, Script, Tokens, answer, client_for


async def test_headers():
    script = Script(answer(200, {"login": "me"}))
    async with client_for(script) as client:
        await client.get("/user", "ask")
    headers = script.requests[0].headers
    assert headers["authorization"] == f"Bearer {CANARY}"
    assert headers["accept"] == "application/vnd.github+json"
    assert headers["x-github-api-version"] == "2022-11-28"
    assert headers["user-agent"].startswith("codespace-kernels/")
    assert str(script.requests[0].url) == "https://api.github.com/user"


async def test_the_path_of_an_enterprise_server_is_kept():
    script = Script(answer(200, {"login": "me"}))
    async with client_for(script, api_url="https://ghe.example.com/api/v3/") as client:
        await client.get("/user", "ask")
    assert str(script.requests[0].url) == "https://ghe.example.com/api/v3/user"


async def test_pages_follow_the_link_header():
    link = '<https://api.github.com/user/codespaces?page=2&per_page=100>; rel="next", <https://x/>; rel="last"'
    script = Script(answer(200, {"items": [{"n": 1}, {"n": 2}]}, link=link), answer(200, {"items": [{"n": 3}, "odd"]}))
    async with client_for(script) as client:
        numbers = [item["n"] async for item in client.pages("/user/codespaces", "list", "items")]
    assert numbers == [1, 2, 3]
    assert [str(request.url.query, "ascii") for request in script.requests] == ["per_page=100", "page=2&per_page=100"]


async def test_pages_that_lead_in_a_circle_end():
    link = '<https://api.github.com/list?page=2>; rel="next"'
    script = Script(answer(200, {"items": [{}]}, link=link))
    async with client_for(script) as client:
        assert len([item async for item in client.pages("/list", "list", "items")]) == 2


@pytest.mark.parametrize(
    "elsewhere", ["https://evil.example/x", "http://api.github.com/x", "https://api.github.com:8443/x"]
)
async def test_the_token_is_not_sent_to_another_origin(elsewhere):
    for first in (
        answer(200, {"items": [{}]}, link=f'<{elsewhere}>; rel="next"'),
        answer(302, location=elsewhere),
    ):
        script = Script(first)
        async with client_for(script) as client:
            with pytest.raises(GitHubError, match="not sent there"):
                [item async for item in client.pages("/list", "list", "items")]
        assert len(script.requests) == 1


async def test_a_redirect_within_the_api_is_followed():
    script = Script(answer(301, location="https://api.github.com/repositories/7"), answer(200, {"id": 7}))
    async with client_for(script) as client:
        assert (await client.get("/repos/old/name", "find"))["id"] == 7
    assert script.requests[1].headers["authorization"] == f"Bearer {CANARY}"


async def test_redirects_in_a_circle_end_with_an_error():
    script = Script(answer(302, location="https://api.github.com/again"))
    async with client_for(script) as client:
        with pytest.raises(GitHubError):
            await client.get("/again", "find")
    assert len(script.requests) < 10


async def test_an_unchanged_answer_is_taken_from_the_cache():
    script = Script(answer(200, {"n": 1}, etag='W/"a"'), answer(304), answer(200, {"n": 2}, etag='W/"b"'), answer(304))
    async with client_for(script) as client:
        seen = [(await client.get("/x", "ask", cached=True))["n"] for _ in range(4)]
    assert seen == [1, 1, 2, 2]
    conditions = [request.headers.get("if-none-match") for request in script.requests]
    assert conditions == [None, 'W/"a"', 'W/"a"', 'W/"b"']


async def test_a_compressed_answer_survives_the_cache():
    packed = httpx.Response(200, headers={"etag": "1", "content-encoding": "gzip"}, content=gzip.compress(b'{"n": 1}'))
    sent = []

    def serve(request):
        sent.append(request)
        return packed if len(sent) == 1 else httpx.Response(304)

    async with client_for(Script(serve)) as client:
        assert [(await client.get("/x", "ask", cached=True))["n"] for _ in range(2)] == [1, 1]


async def test_other_answers_are_not_kept():
    script = Script(answer(200, {"secret": 1}, etag="a"))
    async with client_for(script) as client:
        for _ in range(2):
            await client.get("/x", "ask")
    assert all("if-none-match" not in request.headers for request in script.requests)


async def test_another_token_does_not_see_the_kept_answer():
    script = Script(answer(200, {"n": 1}, etag="a"), answer(401), answer(200, {"n": 2}))
    async with client_for(script, "old", "new") as client:
        assert [(await client.get("/x", "ask", cached=True))["n"] for _ in range(2)] == [1, 2]
    assert [request.headers["authorization"] for request in script.requests] == [
        "Bearer old",
        "Bearer old",
        "Bearer new",
    ]
    assert [request.headers.get("if-none-match") for request in script.requests][1:] == ["a", None]


async def test_a_refused_token_is_looked_for_once_more():
    script = Script(answer(401), answer(200, {"n": 1}))
    async with client_for(script, "expired", "fresh") as client:
        assert (await client.get("/x", "ask"))["n"] == 1
        await client.get("/x", "ask")
    assert script.requests[-1].headers["authorization"] == "Bearer fresh"


async def test_a_token_that_stays_the_same_is_not_sent_again():
    script = Script(answer(401))
    async with client_for(script) as client:
        with pytest.raises(BadTokenError):
            await client.get("/x", "ask")
    assert len(script.requests) == 1


async def test_server_errors_are_repeated_for_reads_only():
    script = Script(answer(502), answer(503, retry_after="0"), answer(200, {"n": 1}))
    async with client_for(script) as client:
        assert (await client.get("/x", "ask"))["n"] == 1
    script = Script(answer(502))
    async with client_for(script) as client:
        with pytest.raises(GitHubUnavailableError, match=r"api\.github\.com.*502.*look before you repeat"):
            await client.request("POST", "/x", "create it", json={})
    assert len(script.requests) == 1


async def test_server_errors_end_after_some_tries():
    script = Script(answer(500))
    async with client_for(script) as client:
        with pytest.raises(GitHubUnavailableError) as caught:
            await client.get("/x", "ask")
    assert len(script.requests) == 4
    assert caught.value.status == 500


@pytest.mark.parametrize(
    ("error", "tries"),
    [(httpx.ConnectError("refused"), 4), (httpx.ReadTimeout("slow"), 1), (httpx.ReadError("cut"), 1)],
)
async def test_a_post_is_repeated_only_when_it_was_never_sent(error, tries):
    script = Script(error)
    async with client_for(script) as client:
        with pytest.raises(GitHubUnavailableError, match=r"api\.github\.com") as caught:
            await client.request("POST", "/x", "create it", json={})
    assert len(script.requests) == tries
    assert caught.value.status == 0


async def test_a_repeatable_post_is_repeated():
    script = Script(httpx.ReadError("cut"), answer(500), answer(200, {}))
    async with client_for(script) as client:
        await client.request("POST", "/start", "start it", repeatable=True)
    assert len(script.requests) == 3


@pytest.mark.parametrize("status", [403, 429])
async def test_a_short_rate_limit_is_waited_for_even_by_a_post(status):
    script = Script(answer(status, {"message": "secondary rate limit"}, retry_after="0"), answer(201, {"n": 1}))
    async with client_for(script) as client:
        await client.request("POST", "/x", "create it", json={})
    assert len(script.requests) == 2


@pytest.mark.parametrize(
    "refusal",
    [
        lambda: answer(429, {"message": "slow down"}, retry_after="3600"),
        lambda: answer(403, {"message": "slow down"}, retry_after="3600"),
        lambda: answer(403, {"message": "API rate limit exceeded"}, x_ratelimit_remaining="0",
                       x_ratelimit_reset=str(int(time.time()) + 3600)),
        lambda: answer(429, {}, retry_after="Wed, 21 Oct 2015 08:28:00 GMT", date="Wed, 21 Oct 2015 07:28:00 GMT"),
    ],
)  # fmt: skip
async def test_a_long_rate_limit_is_told(refusal):
    script = Script(refusal())
    async with client_for(script) as client:
        with pytest.raises(RateLimitError, match=r"60 min from now") as caught:
            await client.get("/x", "list codespaces")
    assert len(script.requests) == 1
    assert caught.value.status in (403, 429)


async def test_waits_of_one_request_are_bounded_together():
    script = Script(answer(429, retry_after="1"))
    async with client_for(script, retry=Backoff(first=0.001, longest_wait=0.5)) as client:
        with pytest.raises(RateLimitError):
            await client.get("/x", "ask")
    assert len(script.requests) == 1


async def test_an_own_policy_decides():
    seen = []

    def never(attempt):
        seen.append((attempt.number, attempt.repeatable))

    script = Script(answer(500))
    async with client_for(script, retry=never) as client:
        with pytest.raises(GitHubUnavailableError):
            await client.get("/x", "ask")
    assert seen == [(1, True)]


async def test_an_answer_that_is_not_github_s_is_told():
    async with client_for(Script(lambda _: httpx.Response(200, text="<html>Sign in to the hotel"))) as client:
        with pytest.raises(GitHubError, match="not GitHub's JSON"):
            await client.get("/x", "ask")


async def test_an_address_where_nobody_listens(unused_tcp_port):
    account = Account(api_url=f"http://127.0.0.1:{unused_tcp_port}")
    async with GitHubClient(account, Tokens(), retry=Backoff(first=0.001)) as client:
        with pytest.raises(GitHubUnavailableError, match=rf"127\.0\.0\.1:{unused_tcp_port} .*emulator running"):
            await client.get("/x", "ask")


async def test_deprecation_is_told_once(caplog):
    script = Script(answer(200, {"n": 1}, deprecation="Tue, 10 Mar 2026 00:00:00 GMT", sunset="2028"))
    async with client_for(script) as client:
        for _ in range(3):
            await client.get("/x", "ask")
    assert len([record for record in caplog.records if "will drop REST version" in record.message]) == 1


async def test_hidden_organisations_are_told(caplog):
    script = Script(answer(200, {"n": 1}, x_github_sso="partial-results; organizations=1,2"))
    async with client_for(script) as client:
        await client.get("/x", "list codespaces")
    assert "single sign-on" in caplog.text


async def test_closing_twice_is_no_error():
    client = client_for(Script(answer(200)))
    await client.close()
    await client.close()
    assert "api.github.com" in repr(client)


async def test_many_requests_at_once_look_for_one_token():
    class Slow(Tokens):
        asked = 0

        async def find(self):
            self.asked += 1
            await asyncio.sleep(0.01)
            return await super().find()

    tokens = Slow()
    transport = httpx.MockTransport(Script(answer(200, {"n": 1})))
    async with GitHubClient(Account(), tokens, transport=transport) as client:
        await asyncio.gather(*(client.get("/x", "ask") for _ in range(5)))
    assert tokens.asked == 1
