"""The WebSocket API: OpenClaw's Gateway protocol, version 4, on any path of the port.

Frames are JSON in text messages: requests, responses and events. A new method is one function and one row in
`methods/`. The schemas are those of the published packages `@openclaw/gateway-protocol` and `@openclaw/gateway-client`.
"""
