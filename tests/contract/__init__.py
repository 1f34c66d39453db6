"""Contract tests of a live gateway: fuzzing, streams, and seeded faults that the fuzzing must find."""
