"""The HTTP layer, independent of the server that parses requests.

``pipeline`` is the way of a request through the ``middleware``; ``routes`` lists every route and ``routing`` finds it;
``endpoints`` answer; ``context`` is what is known of one request, and sends its response; ``error_formats`` renders errors.
"""
