"""Values and functions that every other package builds on: errors, JSON bodies, server-sent events, time, money."""
