"""The live gateway against its contract: fuzzing, streams, and faults that the fuzzing must find."""
