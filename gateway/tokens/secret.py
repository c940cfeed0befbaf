"""Generates, checks, hashes and abbreviates the secrets of tokens.

A secret is a prefix, 43 base62 characters (256 bits) from ``secrets``, and 6 base62 characters of CRC32 over all before them.
The checksum is no security: it lets a mistyped secret be refused without a look-up. SHA-256 is enough to store secrets,
because a search through 2^255 of them is out of reach; slow hashes are for passwords.
"""

import hashlib
import re
import secrets
import zlib

PLAIN, LIVE, TEST = PREFIXES = ("sk-", "sk_live_", "sk_test_")
DISPLAY_LENGTH = 14
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_RANDOM_LENGTH = 43
_CHECKSUM_LENGTH = 6
_OUR_FORM = re.compile(r"(?:sk-|sk_live_|sk_test_)[0-9A-Za-z]{49}")


def generate(prefix: str = "sk-") -> str:
    """Returns a new secret, of 52 characters for the prefix ``sk-``. Raises ValueError for an unknown prefix."""
    if prefix not in PREFIXES:
        raise ValueError(f"the prefix must be one of {', '.join(PREFIXES)}")
    stem = prefix + random_text(_RANDOM_LENGTH)
    return stem + _checksum(stem)


def kind(prefix: str) -> str:
    """Returns which of our prefixes a secret or its display prefix begins with; ``sk-`` for a secret from elsewhere."""
    return next((known for known in reversed(PREFIXES) if prefix.startswith(known)), PREFIXES[0])


def random_text(length: int) -> str:
    """Returns base62 characters from the system's random source."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


def has_our_form(secret: str) -> bool:
    """Whether this could be a whole secret of ours."""
    return _OUR_FORM.fullmatch(secret) is not None


def has_bad_checksum(secret: str) -> bool:
    """Whether this has our form but not our checksum. A secret of any other form comes from elsewhere: False."""
    return has_our_form(secret) and _checksum(secret[:-_CHECKSUM_LENGTH]) != secret[-_CHECKSUM_LENGTH:]


def digest(secret: str) -> str:
    """Returns the SHA-256 in hexadecimal, which is stored and looked up. Takes any string, even what is not valid UTF-8."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def display_prefix(secret: str) -> str:
    """Returns the beginning that lists show: 14 characters, and never more than half of a short secret."""
    return secret[: min(DISPLAY_LENGTH, max(1, len(secret) // 2))]


def _checksum(stem: str) -> str:
    number = zlib.crc32(stem.encode())
    digits = ""
    for _ in range(_CHECKSUM_LENGTH):
        number, digit = divmod(number, 62)
        digits = _ALPHABET[digit] + digits
    return digits
