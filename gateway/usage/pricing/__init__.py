"""What model tokens cost: the prices that come along, and those that the operator sets."""
