"""The device flow against the emulated account, and where its tokens are kept."""

from __future__ import annotations

import asyncio
import stat
import time

import httpx
import keyring
import keyring.backend
import keyring.backends.fail
import pytest

from codespace_kernels.errors import AuthError, GitHubUnavailableError, SettingsError, WaitTimeoutError
from codespace_kernels.github.device_flow import DeviceFlow, IssuedToken
from codespace_kernels.github.sign_in import SignIns, SignInSource


class DictKeyring(keyring.backend.KeyringBackend):
    """A keyring of this test: the library's own way to bring a backend."""

    priority = 1

    def __init__(self):
        super().__init__()
        self.passwords = {}

    def get_password(self, service, username):
        return self.passwords.get((service, username))

    def set_password(self, service, username, password):
        self.passwords[service, username] = password

    def delete_password(self, service, username):
        del self.passwords[service, username]


@pytest.fixture
def own_keyring():
    before = keyring.get_keyring()
    own = DictKeyring()
    keyring.set_keyring(own)
    yield own
    keyring.set_keyring(before)


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("CODESPACE_KERNELS_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
async def flow(emulator):
    flow = DeviceFlow(emulator.api_url, "Iv1.client")
    yield flow
    await flow.close()


@pytest.fixture(scope="class")
def emulator_options():
    return {"transition_seconds": 0.1, "sign_in_interval": 0.05}


async def decide(code, decision: str = "authorize") -> int:
    """Do what a person does on the page."""
    async with httpx.AsyncClient(trust_env=False) as browser:
        form = {"user_code": code.user_code.lower(), "decision": decision}
        return (await browser.post(code.verification_uri, data=form)).status_code


async def signed_in(flow) -> IssuedToken:
    code = await flow.begin()
    assert await decide(code) == 200
    return await flow.wait(code)


class TestDeviceFlow:
    async def test_a_person_authorises(self, flow, emulator):
        code = await flow.begin()
        assert code.device_code not in repr(code)
        waiting = asyncio.create_task(flow.wait(code))
        await asyncio.sleep(0.2)
        assert not waiting.done()
        await decide(code)
        token = await waiting
        assert (token.scopes, token.expires_at, token.refresh_token) == (("codespace",), None, "")
        assert token.access_token not in repr(token)
        answer = httpx.get(
            f"{emulator.api_url}/user", headers={"Authorization": f"Bearer {token.access_token}"}, trust_env=False
        )
        assert answer.json()["login"] == "octocat"

    async def test_a_person_refuses(self, flow):
        code = await flow.begin()
        await decide(code, "deny")
        with pytest.raises(AuthError, match="turned down"):
            await flow.wait(code)

    async def test_a_code_that_nobody_knows(self, flow):
        code = await flow.begin()
        assert await decide(type(code)("AAAA-AAAA", code.verification_uri, "")) == 422

    async def test_slow_down_is_obeyed(self, flow, emulator):
        emulator.faults.set("login-error", None, error="slow_down", count=2)
        assert (await signed_in(flow)).access_token

    @pytest.mark.parametrize(
        ("error", "said"),
        [("expired_token", "not entered in time"), ("access_denied", "turned down")],
    )
    async def test_refusals_say_what_to_do(self, flow, emulator, error, said):
        code = await flow.begin()
        emulator.faults.set("login-error", None, error=error, count=1)
        with pytest.raises(AuthError, match=said):
            await flow.wait(code)

    @pytest.mark.parametrize(
        ("error", "said"),
        [("device_flow_disabled", "Switch it on"), ("incorrect_client_credentials", "CODESPACE_KERNELS_CLIENT_ID")],
    )
    async def test_refusals_before_there_is_a_code(self, flow, emulator, error, said):
        emulator.faults.set("login-error", None, error=error, count=1)
        with pytest.raises(AuthError, match=said):
            await flow.begin()

    async def test_nobody_comes(self, flow):
        code = await flow.begin()
        with pytest.raises(WaitTimeoutError, match=code.user_code):
            await flow.wait(type(code)(code.user_code, "", code.device_code, 0.3, 0.05))

    async def test_nobody_answers(self, emulator):
        flow = DeviceFlow("http://127.0.0.1:9", "id")
        with pytest.raises(GitHubUnavailableError, match="did not answer"):
            await flow.begin()
        await flow.close()


class TestKept:
    async def test_in_the_keyring(self, flow, emulator, own_keyring, home):
        token = await signed_in(flow)
        sign_ins = SignIns(emulator.api_url)
        await sign_ins.save(token, in_file=False)
        assert not sign_ins.file.exists()
        found = await SignInSource(emulator.api_url).find()
        assert found.value == token.access_token
        assert found.source == "`codespace-kernels login`"
        assert await sign_ins.forget()
        assert own_keyring.passwords == {}
        assert not await sign_ins.forget()

    async def test_in_a_file_for_ones_own_eyes(self, flow, emulator, own_keyring, home):
        sign_ins = SignIns(emulator.api_url)
        token = await signed_in(flow)
        await sign_ins.save(token, in_file=True)
        assert own_keyring.passwords == {}
        assert stat.S_IMODE(sign_ins.file.stat().st_mode) == 0o600
        assert await sign_ins.load() == (token, True)
        # A later one in the keyring takes its place.
        await sign_ins.save(token, in_file=False)
        assert not sign_ins.file.exists()

    async def test_no_keyring(self, flow, emulator, home):
        before = keyring.get_keyring()
        keyring.set_keyring(keyring.backends.fail.Keyring())
        try:
            sign_ins = SignIns(emulator.api_url)
            with pytest.raises(SettingsError, match="--insecure-storage"):
                await sign_ins.save(await signed_in(flow), in_file=False)
            assert await sign_ins.load() is None
        finally:
            keyring.set_keyring(before)

    @pytest.mark.parametrize("text", ["", "gho_plain", "{", "{}", "[]"])
    async def test_what_is_no_sign_in_of_ours(self, emulator, own_keyring, home, text):
        sign_ins = SignIns(emulator.api_url)
        own_keyring.set_password(f"codespace-kernels:{sign_ins.host}", "signed in", text)
        assert await sign_ins.load() is None


class TestRefresh:
    async def test_a_token_about_to_expire_is_replaced_once(self, flow, emulator, own_keyring, home):
        emulator.faults.set("expiring-tokens", None, seconds=300)
        old = await signed_in(flow)
        assert old.refresh_token not in repr(old)
        emulator.faults.set("expiring-tokens", None, seconds=28800)
        sign_ins = SignIns(emulator.api_url)
        await sign_ins.save(old, in_file=False)
        # The refresh token is good for one only: whoever comes second must take what the first one got.
        one, two = await asyncio.gather(sign_ins.fresh(), SignIns(emulator.api_url).fresh())
        assert one == two
        assert one.access_token != old.access_token
        assert one.expires_at > time.time() + 28000
        assert (await sign_ins.load())[0] == one

    async def test_a_token_that_lasts_is_left_alone(self, flow, emulator, own_keyring, home):
        emulator.faults.set("expiring-tokens", None, seconds=28800)
        token = await signed_in(flow)
        sign_ins = SignIns(emulator.api_url)
        await sign_ins.save(token, in_file=False)
        assert await sign_ins.fresh() == token

    async def test_a_refresh_token_of_the_past(self, flow, emulator, own_keyring, home):
        sign_ins = SignIns(emulator.api_url)
        soon, past = time.time() + 60, time.time() - 60
        await sign_ins.save(IssuedToken("gho_soon", expires_at=soon, refresh_token="ghr_used"), in_file=False)
        # It is still good for a minute.
        assert (await sign_ins.fresh()).access_token == "gho_soon"
        await sign_ins.save(IssuedToken("gho_past", expires_at=past, refresh_token="ghr_used"), in_file=False)
        with pytest.raises(AuthError, match="Sign in again"):
            await SignInSource(emulator.api_url).find()
