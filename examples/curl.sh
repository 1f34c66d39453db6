#!/bin/sh
# One answer, a stream, a session and an error with curl. Needs OPENCLAW_GATEWAY_TOKEN.
set -eu
base_url="${BASE_URL:-http://127.0.0.1:18789/v1}"

post() {
    curl -sSN "$base_url/chat/completions" \
        -H "Authorization: Bearer $OPENCLAW_GATEWAY_TOKEN" \
        -H 'Content-Type: application/json' \
        "$@"
    echo
}

echo '# one answer'
post -d '{"model": "openclaw", "messages": [{"role": "user", "content": "hi"}]}'

echo '# a stream'
post -d '{"model": "openclaw", "stream": true, "messages": [{"role": "user", "content": "hi"}]}'

echo '# a session: the second request sends only what is new'
session="x-openclaw-session-key: curl-$$"
post -H "$session" -d '{"messages": [{"role": "user", "content": "My name is Anna."}]}'
post -H "$session" -d '{"messages": [{"role": "user", "content": "What is my name?"}]}'

echo '# an error: the code is stable, the message says what to do'
post -d '{"messages": [{"role": "user", "content": "hi"}], "temperature": 3}'
