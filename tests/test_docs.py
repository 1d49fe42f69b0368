"""What the documentation says of the tests is so."""

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "front-ends.md"


def names_in(file: Path) -> set[str]:
    """Names of a module's test functions and classes."""
    found = ast.parse(file.read_text(encoding="utf-8")).body
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return {node.name for node in found if isinstance(node, kinds) and node.name.lower().startswith("test")}


def test_every_test_that_the_table_of_front_ends_names_exists():
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", PAGE.read_text(encoding="utf-8"))
    assert len(named) > 35
    missing = [f"{file}::{name}" for file, name in named if name not in names_in(TESTS / "e2e" / file)]
    assert not missing


def test_every_test_that_the_threat_model_names_exists():
    text = (TESTS.parent / "docs" / "security.md").read_text(encoding="utf-8")
    files = set(re.findall(r"`([\w/]*test_\w+\.py)`", text))
    assert len(files) > 20
    assert {file for file in files if not (TESTS / file).exists()} == set()
    named = set(re.findall(r"`(test_\w+)`", text))
    assert named <= {name for file in files for name in names_in(TESTS / file)}
