"""Limits how much a token may use. The nouns, in the order in which a request meets them:

* ``LimitSet`` (``config``): the limits in a token's record. A ``LimitChain`` (``matching``) has those of a token and of its
  parents; a request has to keep to all of them.
* ``Limit`` (``algorithms``): one limit of one token, for all models or for those of a pattern. Requests and model tokens per
  minute, requests at a time, or a budget.
* ``Counter`` (``algorithms``): what is used and reserved of one limit.
* ``CapacityRequest`` (``matching``): a request on its way in, with an estimate of what it will use. It makes one ``Charge``
  for each limit that applies: the amount to reserve.
* ``Limiter`` (``limiter``): reserves all charges of a request or none, and lets requests wait for what others give back.
* ``CounterStore`` (``store``): keeps the counters. ``stores.memory`` is for one process, ``stores.sqlite`` for several,
  with ``stores.leased`` in front: a ``Lease`` (``leases``) is what one of them has reserved in advance.
* ``Reservation`` (``store``): what a request has reserved. It is extended while a stream goes on, and settled once, when what
  the request has used is known.
* ``LimitExceeded`` (``store``): the charge that does not fit. ``presentation`` makes an error and headers of it.
"""
