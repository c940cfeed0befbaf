"""docs/errors.md has what a 401 and a 403 say: people search for the text that they see."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.gateway import ROOT

PACKAGE = ROOT / "gateway"
PAGE = " ".join((ROOT / "docs" / "errors.md").read_text().split())
REFUSALS = {"Unauthenticated", "UnknownCredential", "Forbidden"}
"""What makes a 401 or a 403 of a text."""
REASONS = "_invalid"
"""What does so in ``auth``, with a reason in brackets."""
CREDENTIALS = PACKAGE / "auth" / "credentials.py"


def pieces(node: ast.expr) -> list[str]:
    """The constant parts of a text, without those that are too short to search for."""
    constants = [
        part.value for part in ast.walk(node) if isinstance(part, ast.Constant) and isinstance(part.value, str)
    ]
    return [text for text in map(str.strip, constants) if len(text) > 12]


def texts_of(path: Path) -> Iterator[str]:
    """The constant parts of every text that a module refuses a request with."""
    names = {*REFUSALS, REASONS} if path.parent.name == "auth" else REFUSALS
    tree = ast.parse(path.read_text())
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        named = {
            target.id: node.value
            for node in ast.walk(function)
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        added = {node.target.id: node.value for node in ast.walk(function)
                 if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name)}  # fmt: skip
        for call in ast.walk(function):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in names:
                for argument in call.args:
                    name = argument.id if isinstance(argument, ast.Name) else ""
                    yield from pieces(named.get(name, argument))
                    if name in added:
                        yield from pieces(added[name])


def mistakes() -> Iterator[str]:
    """The texts about credentials that cannot be valid: every constant that is a sentence, and no pattern or docstring."""
    tree = ast.parse(CREDENTIALS.read_text())
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            text = node.value.strip()
            if re.match(r"(?:it|there|is|`B\w+`) ", text) and len(text) > 12:
                yield text


TEXTS = sorted({text for path in PACKAGE.rglob("*.py") for text in texts_of(path)} | set(mistakes()))


def test_the_texts_are_found() -> None:
    assert len(TEXTS) > 40
    assert {"its checksum is wrong, so a character is missing or mistyped", "it is a placeholder and no key"} <= {
        *TEXTS
    }


@pytest.mark.parametrize("text", TEXTS)
def test_every_text_of_a_401_and_a_403_is_documented(text: str) -> None:
    sentences = re.split(r"(?<=[.:]) ", text)
    assert any(sentence.strip(" .(") in PAGE for sentence in sentences if len(sentence) > 10), (
        f"docs/errors.md does not have: {text}"
    )
