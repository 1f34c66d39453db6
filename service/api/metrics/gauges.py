"""The gauges that are read when they are asked for, and figures of the process itself.

Several processes have the sums of them, or of `FULLEST` the largest.
"""

from __future__ import annotations

#: Each process refuses requests at its own limit, however much room others have.
FULLEST = "openclaw_in_flight_fullest_ratio"

#: Gauges that are read when they are asked for: name, text and labels.
GAUGES = (
    ("openclaw_runs", "Runs that go on.", ("state",)),
    ("openclaw_http_streams", "Open streams of Server-Sent Events.", ()),
    ("openclaw_websocket_connections", "Authenticated WebSockets.", ()),
    ("openclaw_in_flight_bytes", "Memory for bodies, messages and output that is not read yet.", ()),
    ("openclaw_in_flight_limit_bytes", "The limit of this memory.", ()),
    (FULLEST, "The share of this limit that is used, from 0 to 1, in the process that uses most.", ()),
)

#: Figures of prometheus_client's collector of a process that can be added up over several.
CPU_SECONDS = "process_cpu_seconds_total"
PROCESS = {
    CPU_SECONDS: "CPU time, in seconds.",
    "process_resident_memory_bytes": "Resident memory.",
    "process_virtual_memory_bytes": "Virtual memory.",
    "process_open_fds": "Open file descriptors.",
}
