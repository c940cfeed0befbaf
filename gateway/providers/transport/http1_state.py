"""Defines the states of a connection to an upstream, and the only ways from one to another.

A response can reach no other request than its own, because a connection has at most one exchange, gets it in ``IDLE`` alone, and
every byte and every end that the table does not expect closes the connection.
"""

from enum import IntEnum


class State(IntEnum):
    """Says what may arrive on a connection."""

    IDLE = 0
    """Nothing: no request has been sent, or the response to the last one is complete."""
    HEAD = 1
    """The head of the response to the one request that was sent, or of an interim response before it."""
    BODY = 2
    CLOSED = 3


class Event(IntEnum):
    """Says what has happened on a connection."""

    SEND = 0
    """A request is sent, or begins to be."""
    HEAD = 1
    """A head has come, and not that of an interim response."""
    END = 2
    """The response is complete, nothing came behind it, its request was sent completely, and both sides keep the connection."""
    CLOSE = 3
    """Anything else: bytes that no request has asked for, an end too early, a fault, a time limit, a reader that went away."""


TRANSITIONS = {
    (State.IDLE, Event.SEND): State.HEAD,
    (State.HEAD, Event.HEAD): State.BODY,
    (State.BODY, Event.END): State.IDLE,
}


def next_state(state: State, event: Event) -> State:
    """Returns the state after an event. What the table does not name closes the connection."""
    return TRANSITIONS.get((state, event), State.CLOSED)
