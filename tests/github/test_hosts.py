from __future__ import annotations

import pytest

from codespace_kernels.errors import SettingsError
from codespace_kernels.github import account_from_environment, host_of, is_github_hosted, is_loopback


@pytest.mark.parametrize(
    ("api_url", "host"),
    [
        ("https://api.github.com", "github.com"),
        ("https://API.GitHub.com/", "github.com"),
        ("https://ghe.example.com/api/v3", "ghe.example.com"),
        ("https://ghe.example.com:8443/api/v3", "ghe.example.com"),
        ("https://api.acme.ghe.com", "acme.ghe.com"),
        ("http://api.github.localhost", "github.localhost"),
        ("http://127.0.0.1:4711", "127.0.0.1"),
        ("https://api.example.com", "api.example.com"),
    ],
)
def test_host_of_an_api_address(api_url, host):
    assert host_of(api_url) == host


@pytest.mark.parametrize(
    "api_url",
    ["", "github.com", "ftp://github.com", "https://", "https://h:port/", "https://h/?a=b", "http://ghe.example.com"],
)
def test_an_address_that_cannot_be_used_is_refused(api_url):
    with pytest.raises(SettingsError):
        host_of(api_url)


def test_a_secret_in_an_address_is_not_quoted():
    with pytest.raises(SettingsError) as caught:
        host_of("https://me:hunter2@ghe.example.com/api/v3")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("env", "api_url"),
    [
        ({}, "https://api.github.com"),
        ({"GH_HOST": "github.com"}, "https://api.github.com"),
        ({"GH_HOST": "GHE.example.com"}, "https://ghe.example.com/api/v3"),
        ({"GH_HOST": "acme.ghe.com"}, "https://api.acme.ghe.com"),
        ({"GH_HOST": "github.localhost"}, "http://api.github.localhost"),
        ({"GITHUB_API_URL": "http://127.0.0.1:99/"}, "http://127.0.0.1:99"),
        ({"GITHUB_API_URL": "http://127.0.0.1:99", "GH_HOST": "github.com"}, "http://127.0.0.1:99"),
        ({"GITHUB_API_URL": "", "GH_HOST": ""}, "https://api.github.com"),
    ],
)
def test_account_of_an_environment(env, api_url):
    assert account_from_environment(env).api_url == api_url


@pytest.mark.parametrize("env", [{"GH_HOST": "https://x/y"}, {"GH_HOST": "a b"}, {"GITHUB_API_URL": "github"}])
def test_an_environment_that_names_no_host_is_refused(env):
    with pytest.raises(SettingsError):
        account_from_environment(env)


def test_loopback_and_hosted():
    assert is_loopback("http://127.0.0.2:1")
    assert is_loopback("http://[::1]:1")
    assert is_loopback("http://localhost:1")
    assert not is_loopback("https://127.example.com")
    assert is_github_hosted("acme.ghe.com")
    assert not is_github_hosted("ghe.example.com")
