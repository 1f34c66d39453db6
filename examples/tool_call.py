"""A function of the caller's: the model calls it, this program executes it, the run continues with the result.

Needs a model that can call tools. Usage: python tool_call.py [MESSAGE].
"""

import datetime as dt
import json
import os
import sys

from openai import OpenAI

client = OpenAI(
    base_url=os.environ.get("BASE_URL", "http://127.0.0.1:18789/v1"),
    api_key=os.environ["OPENCLAW_GATEWAY_TOKEN"],
)
tools = [
    {
        "type": "function",
        "function": {
            "name": "current_time",
            "description": "Return the current date and time in UTC.",
            "parameters": {"type": "object", "properties": {}, "additionalProperties": False},
        },
    }
]


def current_time() -> str:
    """Return the current date and time in UTC, as JSON."""
    return json.dumps({"utc": dt.datetime.now(dt.UTC).isoformat(timespec="seconds")})


messages = [{"role": "user", "content": sys.argv[1] if len(sys.argv) > 1 else "What time is it?"}]
while True:
    answer = client.chat.completions.create(model="openclaw", messages=messages, tools=tools)
    choice = answer.choices[0]
    if choice.finish_reason != "tool_calls":
        break
    messages.append(choice.message.to_dict())
    for call in choice.message.tool_calls:
        print(f"(the model calls {call.function.name} {call.function.arguments})")
        messages.append({"role": "tool", "tool_call_id": call.id, "content": current_time()})
print(choice.message.content)
