"""A stream, printed as it arrives, and the token counts at its end. Usage: python stream.py [MESSAGE]."""

import os
import sys

from openai import OpenAI

client = OpenAI(
    base_url=os.environ.get("BASE_URL", "http://127.0.0.1:18789/v1"),
    api_key=os.environ["OPENCLAW_GATEWAY_TOKEN"],
)
message = sys.argv[1] if len(sys.argv) > 1 else "hi"
stream = client.chat.completions.create(
    model="openclaw",
    messages=[{"role": "user", "content": message}],
    stream=True,
    stream_options={"include_usage": True},
)
for chunk in stream:
    for choice in chunk.choices:
        print(choice.delta.content or "", end="", flush=True)
    if chunk.usage is not None:
        print(f"\n({chunk.usage.prompt_tokens} tokens read, {chunk.usage.completion_tokens} written)")
