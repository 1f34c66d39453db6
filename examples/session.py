"""A conversation that the gateway remembers: each request sends only what is new. Usage: python session.py [KEY].

Run it twice with the same key and the second run continues the first.
"""

import os
import sys
import uuid

from openai import OpenAI

client = OpenAI(
    base_url=os.environ.get("BASE_URL", "http://127.0.0.1:18789/v1"),
    api_key=os.environ["OPENCLAW_GATEWAY_TOKEN"],
)
key = sys.argv[1] if len(sys.argv) > 1 else f"example-{uuid.uuid4()}"
for question in ("My name is Anna.", "What is my name?"):
    response = client.chat.completions.with_raw_response.create(
        model="openclaw",
        messages=[{"role": "user", "content": question}],
        extra_headers={"x-openclaw-session-key": key},
    )
    key = response.headers["x-openclaw-session-key"]  # the full key, agent:<id>:<key>; either form continues
    print(f"> {question}\n{response.parse().choices[0].message.content}")
print(f"(session {key})")
