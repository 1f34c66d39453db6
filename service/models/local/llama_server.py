"""Serve one GGUF model file with llama.cpp's own server, on the loopback interface, until standard input ends.

Run as a program, `python -m service.models.local.llama_server --port PORT --model FILE --key-variable NAME`; the API
key is in the environment, which other users of the machine cannot read. `/health` needs none.
"""

from __future__ import annotations

import argparse
import os
import sys

import xllamacpp

_WARNINGS = 2  # llama.cpp's level that leaves out a dozen lines for each request


def main() -> None:
    """Serve until standard input ends."""
    options = _parse_options()
    server = xllamacpp.Server(_to_parameters(options, os.environ.pop(options.key_variable)))
    sys.stdout.write(f"serving {options.model} at {server.listening_address}\n")
    sys.stdout.flush()
    sys.stdin.buffer.read()
    os._exit(0)  # the server's threads have no state to save


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Serve a GGUF model on the loopback interface.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--model", required=True, help="the GGUF file")
    parser.add_argument("--key-variable", required=True, help="the environment variable with the API key")
    parser.add_argument("--slots", type=int, default=2, help="answers made at the same time")
    parser.add_argument("--slot-tokens", type=int, default=4096, help="the longest prompt and answer together")
    parser.add_argument("--answer-tokens", type=int, default=1024, help="the longest answer unless a request says")
    return parser.parse_args()


def _to_parameters(options: argparse.Namespace, api_key: str) -> xllamacpp.CommonParams:
    parameters = xllamacpp.CommonParams()
    parameters.model.path = options.model
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = options.port
    parameters.api_keys = [api_key]
    parameters.n_parallel = options.slots
    parameters.n_ctx = options.slots * options.slot_tokens
    parameters.n_predict = options.answer_tokens
    # Without these a model this small soon writes nonsense or never ends; fields of the request take precedence.
    parameters.sampling.temp, parameters.sampling.top_p = 0.2, 0.9
    parameters.sampling.penalty_repeat = 1.1
    # Threads that wait for each other between tokens cost a small model more than they gain: one thread generates 145
    # tokens/s on two idle cores and 88 on two busy ones, two threads 49 and 27 with passive waits, 176 and 26 with busy
    # waits. Prompts are processed in large batches, which benefit from every core.
    parameters.cpuparams.n_threads = 1
    parameters.cpuparams_batch.n_threads = os.cpu_count() or 1
    parameters.cache_idle_slots = False
    parameters.cache_ram_mib = 0  # by default it may keep 8 GiB of old prompts
    parameters.verbosity = _WARNINGS
    parameters.ui = parameters.fit_params = False
    return parameters


if __name__ == "__main__":
    main()
