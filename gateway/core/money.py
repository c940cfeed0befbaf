"""Money is counted in whole micro-dollars everywhere, because sums of binary fractions drift. This module writes it as text."""

MICRO_USD = 1_000_000
"""The micro-dollars in one US dollar."""


def format_usd(micro_usd: int) -> str:
    """Returns micro-dollars as dollars, exactly, in the form of a JSON number: ``0.0015``, ``12``, ``-0.5``."""
    sign = "-" if micro_usd < 0 else ""
    dollars, fraction = divmod(abs(micro_usd), MICRO_USD)
    return f"{sign}{dollars}.{fraction:06d}".rstrip("0").rstrip(".")
