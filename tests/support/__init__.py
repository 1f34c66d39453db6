"""What the tests share: live gateways, upstream stubs, clients."""
