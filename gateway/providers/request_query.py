"""Says which query parameters are forwarded with a JSON body.

Some upstreams take a parameter for a field of the body, and prefer it: LiteLLM answers from the model of ``?model=``. So a
request whose body was checked goes out with those parameters alone that are known to choose a version of the API.
"""

from urllib.parse import parse_qsl, urlencode

_ALLOWED = frozenset({"api-version", "beta"})
"""Azure's clients send the one, Anthropic's the other."""
_MAX_VALUE_LENGTH = 64


def forwarded_query(query: str) -> str:
    """Returns the query that goes out with a JSON body, in our own spelling."""
    if not query:
        return ""
    given = parse_qsl(query, keep_blank_values=True)
    return urlencode([(name, value) for name, value in given if name in _ALLOWED and len(value) <= _MAX_VALUE_LENGTH])
