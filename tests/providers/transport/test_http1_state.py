"""The states of a connection: every pair of a state and an event, of which the table names the allowed ones."""

import itertools

import pytest

from gateway.providers.transport.http1_state import TRANSITIONS, Event, State, next_state


@pytest.mark.parametrize(("state", "event"), list(itertools.product(State, Event)))
def test_what_the_table_does_not_name_closes_the_connection(state: State, event: Event) -> None:
    expected = {
        (State.IDLE, Event.SEND): State.HEAD,
        (State.HEAD, Event.HEAD): State.BODY,
        (State.BODY, Event.END): State.IDLE,
    }
    assert next_state(state, event) is expected.get((state, event), State.CLOSED)


def test_a_closed_connection_stays_closed_and_a_request_needs_an_idle_one() -> None:
    assert all(next_state(State.CLOSED, event) is State.CLOSED for event in Event)
    assert [pair for pair in TRANSITIONS if pair[1] is Event.SEND] == [(State.IDLE, Event.SEND)]
    assert [pair for pair, state in TRANSITIONS.items() if state is State.IDLE] == [(State.BODY, Event.END)]
