"""Who answers: ``base`` is the protocol, ``registry`` finds implementations, each other module is one."""
