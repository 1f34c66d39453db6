"""The HTTP door: the contract bound to the handlers, and the wire's words for ours."""
