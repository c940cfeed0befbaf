"""Records what a checkout of the gateway answers: every endpoint and every command, as bytes that can be compared.

``python -m scripts.transcript CHECKOUT > transcript.txt`` runs the gateway of ``CHECKOUT`` as real processes and prints what
came back. Two checkouts that behave alike give two equal files, so ``diff before.txt after.txt`` shows every change.

Nothing is imported from the package under test: its inner structure may change without changing the transcript.

* ``wire`` sends raw bytes and reads raw answers, ``processes`` starts gateways and runs commands.
* ``upstream`` is the server behind the gateway; each case says what it answers.
* ``fixtures`` has the token file, ``normalise`` replaces what is random or depends on the clock.
* ``session`` puts these together for the cases; ``cases_*`` are the cases, one module a configuration.
"""
