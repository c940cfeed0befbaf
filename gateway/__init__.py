"""A gateway in front of anything that speaks OpenAI's API.

The nouns, from the socket inwards:

* a **credential** is the secret text a client sends; a **token** is the record it belongs to;
* a **principal** is who is calling: a token, the environment key, or anybody in open mode;
* an **authority** is what a principal may do to which tokens, and a **grant** how much a token may do itself;
* a **backend** turns a request whose body was checked into an **answer**;
* an **upstream** is the server that a backend talks to, through one narrow door.

A request travels in a straight line: ``http/pipeline`` (id, errors, log) -> ``http/gate`` (who, may it?) ->
``http/routes`` -> ``inference`` -> ``backends`` -> ``upstream``; its answer returns through ``http/relay``.
A change to tokens goes from ``http/routes`` to ``management`` and ``tokens/service``, and into the audit log first.
``docs/architecture.md`` draws the rooms, and a test holds that picture against the imports.
"""

__version__ = "0.2.0"
