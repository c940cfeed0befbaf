"""How much a token may use. The nouns, in the order in which a request meets them:

* a ``LimitSet`` (``policy``) is what a token's record says;
* a ``Charge`` (``charges``) is what one request wants of one counter, for one limit of one token of its line;
* ``CounterStore`` (``counters``, with ``memory`` and ``sqlite``) grant all demands of a request or none: a ``Reservation``;
* the ``Limiter`` (``limiter``) lets requests wait for each other, fairly, and sees that each reservation is settled once.
"""
