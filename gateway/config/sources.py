"""Where settings come from: the environment, ``.env``, a TOML file. What cannot be read is a problem that is noted, so that
all of them are told in one go."""

import difflib
import io
import tomllib
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

from dotenv.parser import parse_stream

from gateway.config import parsers as parse

CONFIG = "GATEWAY_CONFIG"
_PRICES = "prices"


class Problem(NamedTuple):
    """One thing that is wrong with the configuration, and how to mend it."""

    setting: str
    complaint: str

    def __str__(self) -> str:
        return f"{self.setting}: {self.complaint}"


class Spec(NamedTuple):
    """One row of the settings table."""

    name: str
    default: str
    parse: Callable[[str], Any]
    help: str
    secret: bool = False


Specs = Mapping[str, Spec]
"""The settings by their names."""


class Toml(NamedTuple):
    """What a TOML file says: settings in text form, and the table of prices as it stands there."""

    settings: dict[str, str]
    prices: Any


def read_env_file(named: Path | None, specs: Specs, problems: list[Problem]) -> dict[str, str]:
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
    # Values are taken literally: a secret may hold "${".
    for binding in parse_stream(io.StringIO(text)):
        if binding.error or (binding.key in specs and binding.value is None):
            # Passed over, a key with a slip in it would leave the gateway open.
            problems.append(Problem(f"{path}, line {binding.original.line}", "is not NAME=value"))
        elif binding.key is not None and binding.value is not None:
            found[binding.key] = binding.value
    return found


def read_toml(path: Path, specs: Specs, problems: list[Problem]) -> Toml:
    """TOML keys are the settings' names in lower case, without ``GATEWAY_``. Secrets do not belong there."""
    try:
        # Money is not to be rounded on its way.
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


def refuse_unknown(sources: Mapping[str, str], specs: Specs, problems: list[Problem]) -> None:
    known = {*specs, CONFIG} | {f"{spec.name}_FILE" for spec in specs.values() if spec.secret}
    for name in sorted(sources):
        is_slip = name.upper() not in known and difflib.get_close_matches(
            name.upper(), ("FREEGPT_API_KEY",), cutoff=0.85
        )
        if name not in known and (name.upper().startswith("GATEWAY_") or is_slip):
            problems.append(Problem(name, "is not a setting" + _nearest(name, specs)))


def _nearest(name: str, specs: Specs) -> str:
    # Without the common beginning, by which everything resembles everything.
    ends = {known.removeprefix("GATEWAY_"): known for known in specs}
    near = difflib.get_close_matches(name.upper().removeprefix("GATEWAY_"), list(ends), n=1)
    return f"; did you mean {ends[near[0]]}?" if near else "; see .env.example for the list"


def text_of(spec: Spec, sources: Mapping[str, str], problems: list[Problem]) -> str:
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
