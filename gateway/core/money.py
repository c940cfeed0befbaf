"""Money is whole micro-dollars everywhere; this is how it is written for people and programs."""

MICRO = 1_000_000


def usd(micro: int) -> str:
    """Micro-dollars as dollars, exactly, in the form of a JSON number: ``0.0015``, ``12``."""
    sign, rest = ("-", -micro) if micro < 0 else ("", micro)
    text = f"{sign}{rest // MICRO}.{rest % MICRO:06d}"
    return text.rstrip("0").rstrip(".")
