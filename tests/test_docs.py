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
