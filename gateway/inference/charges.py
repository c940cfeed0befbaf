"""What an admitted request is charged, by the state in which it ends and the way in which it ends. Values only."""

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType

import msgspec

from gateway.usage.models import NOTHING_USED, Usage


class _Constant(Enum):
    """An enumeration whose members are looked up in tables for each request: the hash of Enum is a function in Python."""

    __hash__ = object.__hash__


class State(_Constant):
    """How far a request has come."""

    ADMITTED = "admitted"
    """Capacity is reserved, nothing has been sent."""
    SENT = "sent"
    """The provider may be at work. No byte of the body has come."""
    SENT_FOR_STREAM = "sent for a stream"
    """The same, where a stream was asked for: providers stop when its connection is closed."""
    STREAMING_EVENTS = "streaming events"
    """An event stream has begun. Its usage and its chunks of text are counted."""
    STREAMING_BYTES = "streaming bytes"
    """Another body passes in chunks."""
    SETTLED = "settled"
    """What was used is known, and the reservation is settled."""


class Outcome(_Constant):
    """How a request ends."""

    COMPLETED = "completed"
    """The response came to its end."""
    CLIENT_GONE = "client gone"
    """The client left, or the gateway ended the request early."""
    UPSTREAM_TIMEOUT = "upstream timeout"
    FAILED = "failed"
    """Anything else, also a response that was not read to its end."""


class Charged(_Constant):
    """What a request is charged."""

    NOTHING = "nothing"
    PROMPT = "the estimated prompt"
    """The provider was at work and did not say how far it got: it has read the prompt at least."""
    RESERVED = "what was reserved"
    """The provider works on although nobody reads the response, and bills it."""
    SO_FAR = "what was reported or counted so far"
    ALL = "what was reported, or else an estimate"


class Used(msgspec.Struct, frozen=True):
    """What a request has used. ``cost`` in micro-dollars."""

    usage: Usage = NOTHING_USED
    cost: int = 0
    is_estimated: bool = False
    is_partial: bool = False


NO_USE = Used()
_NOTHING = dict.fromkeys(Outcome, Charged.NOTHING)

CHARGES: Mapping[State, Mapping[Outcome, Charged]] = MappingProxyType(
    {
        State.ADMITTED: _NOTHING,
        State.SENT: {
            **_NOTHING,
            Outcome.COMPLETED: Charged.ALL,
            Outcome.CLIENT_GONE: Charged.RESERVED,
            Outcome.UPSTREAM_TIMEOUT: Charged.PROMPT,
        },
        State.SENT_FOR_STREAM: {
            **_NOTHING,
            Outcome.COMPLETED: Charged.ALL,
            Outcome.CLIENT_GONE: Charged.PROMPT,
            Outcome.UPSTREAM_TIMEOUT: Charged.PROMPT,
        },
        State.STREAMING_EVENTS: {**dict.fromkeys(Outcome, Charged.SO_FAR), Outcome.COMPLETED: Charged.ALL},
        State.STREAMING_BYTES: {
            **dict.fromkeys(Outcome, Charged.PROMPT),
            Outcome.COMPLETED: Charged.ALL,
            Outcome.CLIENT_GONE: Charged.RESERVED,
        },
    }
)
"""By the state in which a request ends, and the way in which it does. What is charged PROMPT, RESERVED or SO_FAR is recorded
as partial."""
