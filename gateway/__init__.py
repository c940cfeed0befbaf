"""A gateway in front of anything that speaks OpenAI's API.

The nouns, from the socket inwards:

* a **request context** is a request with what the steps of the **pipeline** have found out about it;
* a **credential** is the string that a client sends; a **token** is the record that it belongs to;
* a **principal** is who makes the request: a token, the environment key, or anybody in open mode;
* an **endpoint** answers a route; a **use case** (``inference``, ``admin``) does what the endpoint is for;
* a **provider** answers a request for inference, usually by sending it to an **upstream** through a **transport**.

A request travels through ``server`` -> ``http.pipeline`` -> the middleware -> an endpoint -> ``inference`` -> a provider -> its
transport, and its response travels back. A change of tokens travels from an endpoint to ``admin`` and into the audit log before
the store of tokens. ``docs/architecture.md`` shows both with the file of each step, and tests compare it with the code.
"""

__version__ = "0.2.0"
