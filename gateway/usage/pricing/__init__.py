"""Prices of models: those that are packaged with the gateway, and those that the operator sets."""
