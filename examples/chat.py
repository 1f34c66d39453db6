"""One answer from the default agent. Usage: python chat.py [MESSAGE]."""

import os
import sys

from openai import OpenAI

client = OpenAI(
    base_url=os.environ.get("BASE_URL", "http://127.0.0.1:18789/v1"),
    api_key=os.environ["OPENCLAW_GATEWAY_TOKEN"],
)
message = sys.argv[1] if len(sys.argv) > 1 else "hi"
answer = client.chat.completions.create(model="openclaw", messages=[{"role": "user", "content": message}])
print(answer.choices[0].message.content)
