"""Sends requests over the network; nothing else opens connections to upstreams. ``base`` defines the interface ``Transport``."""
