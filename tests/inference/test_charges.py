"""What a request is charged, as a table."""

from gateway.inference.charges import CHARGES, Charged, Outcome, State


def test_the_table_knows_every_state_and_every_outcome() -> None:
    assert set(CHARGES) == set(State) - {State.SETTLED}
    assert all(set(outcomes) == set(Outcome) for outcomes in CHARGES.values())
    assert set(CHARGES[State.ADMITTED].values()) == {Charged.NOTHING}


def test_a_client_that_leaves_is_charged_what_the_provider_goes_on_with() -> None:
    """A stream stops when its connection is closed. A whole response is made to its end, and billed."""
    gone = {state: outcomes[Outcome.CLIENT_GONE] for state, outcomes in CHARGES.items()}
    assert gone == {
        State.ADMITTED: Charged.NOTHING,
        State.SENT: Charged.RESERVED,
        State.SENT_FOR_STREAM: Charged.PROMPT,
        State.STREAMING_EVENTS: Charged.SO_FAR,
        State.STREAMING_BYTES: Charged.RESERVED,
    }
