"""Reads the sources of settings: the environment, ``.env``, a TOML file.

What is wrong is appended to a list of problems instead of raised, so that all problems are reported at once.
"""

import difflib
import io
import re
import tomllib
from collections.abc import Callable, Collection, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

from dotenv.parser import parse_stream

from gateway.config import parsers as parse

CONFIG = "GATEWAY_CONFIG"
_KEY_LIKE = re.compile(r"FREE_?GPT_(\w+_)?(API_?)?(KEYS?|TOKENS?|SECRET)(_FILE)?")
_GENERAL_KEY = re.compile(r"GATEWAY_(API_?)?(KEYS?|TOKEN|SECRET)")
_PRICES = "prices"


class Problem(NamedTuple):
    """Describes one thing that is wrong with the configuration, and how to fix it."""

    setting: str
    complaint: str

    def __str__(self) -> str:
        return f"{self.setting}: {self.complaint}"


class Spec(NamedTuple):
    """Describes one setting; ``default`` is text like any other value, and is parsed like it."""

    name: str
    default: str
    parse: Callable[[str], Any]
    help: str
    secret: bool = False


Specs = Mapping[str, Spec]
"""The settings by their names."""


class Toml(NamedTuple):
    """Holds the content of a TOML file: settings as text, and the table of prices as it was read."""

    settings: dict[str, str]
    prices: Any


def read_env_file(named: Path | None, specs: Specs, problems: list[Problem]) -> dict[str, str]:
    """Returns the variables of an env file: of ``named``, which must exist, or of ``.env``, which may be absent."""
    path = named or Path(".env")
    if named is not None and not path.is_file():
        problems.append(Problem("--env-file", f"{path} is not a file"))
        return {}
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        problems.append(Problem(str(path), f"cannot be read: {error}"))
        return {}
    found: dict[str, str] = {}
    # Values are taken literally, because a secret may contain "${".
    for binding in parse_stream(io.StringIO(text)):
        if binding.error or (binding.key in specs and binding.value is None):
            # If this were ignored, a mistake in the line with the key would leave the gateway open.
            problems.append(Problem(f"{path}, line {binding.original.line}", "is not NAME=value"))
        elif binding.key is not None and binding.value is not None:
            found[binding.key] = binding.value
    return found


def read_toml(path: Path, specs: Specs, problems: list[Problem]) -> Toml:
    """Returns the content of a TOML file. Its keys are the settings' names in lower case, without ``GATEWAY_``.

    Secrets are not accepted there.
    """
    try:
        # Prices must not be rounded to binary fractions.
        document = tomllib.loads(path.read_text(encoding="utf-8"), parse_float=Decimal)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        problems.append(Problem(CONFIG, f"{path}: {error}"))
        return Toml({}, {})
    found: dict[str, str] = {}
    prices = document.pop(_PRICES, {})
    for key, value in document.items():
        name = f"GATEWAY_{key.upper()}"
        if name in specs and not specs[name].secret:
            found[name] = parse.from_toml(value)
        else:
            problems.append(Problem(f"{path}: {key}", "is not a setting" + _nearest(name, specs)))
    return Toml(found, prices)


def known_names(specs: Specs) -> frozenset[str]:
    """Returns the names of all variables that are read."""
    return frozenset({*specs, CONFIG} | {f"{spec.name}_FILE" for spec in specs.values() if spec.secret})


def refuse_unknown(sources: Mapping[str, str], specs: Specs, problems: list[Problem]) -> None:
    """Reports every name that looks like a setting and is not one: a misspelt setting would not have its effect."""
    known = known_names(specs)
    for name in sorted(sources):
        if name not in known and _looks_like_setting(name.upper(), known):
            problems.append(Problem(name, "is not a setting" + _nearest(name, specs)))


def _looks_like_setting(name: str, known: Collection[str]) -> bool:
    # Without its key the gateway would start in open mode. Other variables named FREEGPT_… or OPENAI_… belong to clients.
    is_key = _KEY_LIKE.fullmatch(name) or difflib.get_close_matches(name, ("FREEGPT_API_KEY",), cutoff=0.85)
    return name in known or name.startswith("GATEWAY_") or bool(is_key)


def _nearest(name: str, specs: Specs) -> str:
    if name.upper() in known_names(specs):
        return f"; did you mean {name.upper()}, in capitals?"
    if _GENERAL_KEY.fullmatch(name.upper()):
        return (
            "; did you mean FREEGPT_API_KEY, which clients send, or GATEWAY_UPSTREAM_API_KEY, which the gateway sends?"
        )
    if _KEY_LIKE.fullmatch(name.upper()):
        return "; did you mean FREEGPT_API_KEY?"
    # The common prefix would make every name similar to every other.
    ends = {known.removeprefix("GATEWAY_"): known for known in specs}
    near = difflib.get_close_matches(name.upper().removeprefix("GATEWAY_"), list(ends), n=1)
    return f"; did you mean {ends[near[0]]}?" if near else "; see .env.example for the list"


def read_text(spec: Spec, sources: Mapping[str, str], problems: list[Problem]) -> str:
    """Returns a setting's text, for a secret also from the file that ``NAME_FILE`` names; empty where it is not set."""
    text = sources.get(spec.name, "").strip()
    path = sources.get(f"{spec.name}_FILE", "").strip() if spec.secret else ""
    if not path:
        return text
    if text:
        problems.append(Problem(spec.name, f"is given twice, by itself and by {spec.name}_FILE; keep one"))
        return text
    try:
        content = Path(path).read_text(encoding="utf-8-sig").strip()
        if not content:
            problems.append(Problem(f"{spec.name}_FILE", f"{path} is empty"))
        return content
    except (OSError, UnicodeDecodeError) as error:
        problems.append(Problem(f"{spec.name}_FILE", f"cannot be read: {error}"))
        return ""
