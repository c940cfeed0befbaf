"""The benchmark: this gateway, a bare aiohttp relay and the upstream itself, in one run on one machine.

A run travels `quick` (options, verdict) → `rounds` (what is measured, in which order) → `servers` (what is
started) → `processes` (start, pin, wait, CPU time, stop) and `wrk` / `streams` (the two loads) → `report`
(medians, ratios, table, JSON).
"""
