"""The secret text of a token: made, checked, hashed, shown in part.

Form: a prefix, 43 base62 characters (256 bits) from ``secrets``, 6 base62 characters of CRC32 over all that stands before.
The checksum is no security: it lets a mistyped secret be refused without a look-up. SHA-256 is enough to store them,
because a search through 2^255 secrets is out of reach; slow hashes are for passwords.
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
    """A new secret. 52 characters for the prefix ``sk-``."""
    if prefix not in PREFIXES:
        raise ValueError(f"the prefix must be one of {', '.join(PREFIXES)}")
    stem = prefix + random_text(_RANDOM_LENGTH)
    return stem + _checksum(stem)


def kind(prefix: str) -> str:
    """Which of our prefixes a secret or its display prefix begins with; one from elsewhere counts as the plain kind."""
    return next((known for known in reversed(PREFIXES) if prefix.startswith(known)), PREFIXES[0])


def random_text(length: int) -> str:
    """Base62 characters from the system's random source."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


def has_our_form(secret: str) -> bool:
    """Whether this could be a whole secret of ours."""
    return _OUR_FORM.fullmatch(secret) is not None


def has_bad_checksum(secret: str) -> bool:
    """Whether this has our form but not our checksum. Secrets of any other form come from elsewhere: False."""
    return has_our_form(secret) and _checksum(secret[:-_CHECKSUM_LENGTH]) != secret[-_CHECKSUM_LENGTH:]


def digest(secret: str) -> str:
    """SHA-256 in hexadecimal: what is stored, and what is looked up. Takes any text, even what is not valid UTF-8."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def display_prefix(secret: str) -> str:
    """The beginning that lists show: 14 characters, and never more than half of a short secret."""
    return secret[: min(DISPLAY_LENGTH, max(1, len(secret) // 2))]


def _checksum(stem: str) -> str:
    number = zlib.crc32(stem.encode())
    digits = ""
    for _ in range(_CHECKSUM_LENGTH):
        number, digit = divmod(number, 62)
        digits = _ALPHABET[digit] + digits
    return digits
