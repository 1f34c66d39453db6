"""Shared support of the tests: live gateways, upstream stubs, clients."""
