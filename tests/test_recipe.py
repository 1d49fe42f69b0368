"""What a kernelspec says of a kind of codespace."""

from __future__ import annotations

import dataclasses
import json

import pytest

from codespace_kernels.errors import SettingsError
from codespace_kernels.recipe import Recipe
from codespace_kernels.target import Account, Target

FULL = Recipe(
    "octocat/ml", "dev", ".devcontainer/gpu/devcontainer.json", "largePremiumLinux", "WestEurope", 60, True, "octocat"
)


def target_of(recipe: Recipe) -> Target:
    return Target(Account(), "", "python3", recipe=recipe)


@pytest.mark.parametrize("recipe", [FULL, Recipe("octocat/ml")])
def test_it_survives_the_environment_and_a_process_border(recipe):
    target = target_of(recipe)
    assert dataclasses.asdict(Target.from_env(target.to_env())) == dataclasses.asdict(target)
    crossed = Target.from_json(json.loads(json.dumps(dataclasses.asdict(target))))
    assert dataclasses.asdict(crossed) == dataclasses.asdict(target)


def test_what_is_for_new_ones_makes_no_other_target():
    terms = {"location": "", "idle_timeout_minutes": None, "may_create": False, "payer": ""}
    same = dataclasses.replace(FULL, repository="Octocat/ML", **terms)
    assert target_of(same) == target_of(FULL)
    assert hash(target_of(same)) == hash(target_of(FULL))
    assert target_of(same).key == target_of(FULL).key


@pytest.mark.parametrize("change", [{"repository": "octocat/other"}, {"branch": ""}, {"devcontainer_path": ""},
                                    {"machine": ""}])  # fmt: skip
def test_what_it_names_makes_another_target(change):
    other = target_of(dataclasses.replace(FULL, **change))
    assert other != target_of(FULL)
    assert other.key != target_of(FULL).key
    assert target_of(FULL) != target_of(FULL).at("hello-abc") == Target(Account(), "hello-abc", "python3")


@pytest.mark.parametrize(
    ("env", "text"),
    [
        ({"REPOSITORY": "ml"}, "'ml' is no repository"),
        ({"REPOSITORY": "octocat/ml", "BRANCH": "a" * 40}, "is a commit"),
        ({"REPOSITORY": "octocat/ml", "CREATE": "yes"}, "CODESPACE_KERNELS_CREATE is 'yes'"),
        ({"REPOSITORY": "octocat/ml", "IDLE_TIMEOUT": "an hour"}, "'an hour'; it must be a number of minutes"),
        ({"REPOSITORY": "octocat/ml", "WORKSPACE": "hello-abc"}, "both given"),
        ({"REPOSITORY": "octocat/ml", "KERNEL": ""}, "CODESPACE_KERNELS_KERNEL missing"),
    ],
)
def test_what_was_written_by_hand_is_checked(env, text):
    with pytest.raises(SettingsError, match=text):
        Target.from_env({f"CODESPACE_KERNELS_{name}": value for name, value in {"KERNEL": "python3", **env}.items()})


def test_who_may_not_create_names_no_payer():
    env = target_of(dataclasses.replace(FULL, may_create=False)).to_env()
    assert not [name for name in env if name.endswith(("_CREATE", "_PAYER"))]


def test_commands_that_a_person_can_type():
    assert FULL.create_command == (
        "codespace-kernels create octocat/ml --branch dev --devcontainer-path .devcontainer/gpu/devcontainer.json "
        "--machine largePremiumLinux --location WestEurope --idle-timeout 60"
    )
    assert Recipe("octocat/ml").allow_command == "codespace-kernels connect octocat/ml --as-recipe --allow-create"
