"""Who used what: last-used times and counts, written behind the requests."""
