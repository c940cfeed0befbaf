"""Providers answer the requests that the gateway has admitted: ``openai`` asks an upstream, ``echo`` answers by itself.

``base`` defines the interface that third-party providers implement, ``registry`` finds a provider by its name.
"""
