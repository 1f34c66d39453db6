"""Use the client that openapi-generator makes for Python: `python generated.py URL TOKEN`, beside the package."""

import sys

import openapi_client as package

url, token = sys.argv[1:]
client = package.ApiClient(package.Configuration(host=url, access_token=token))

runs = package.RunsApi(client)
run = runs.create_run(package.RunRequest.from_dict({"input": "hi", "session_key": "generated"}))
assert "run.ended" in runs.list_run_events(run.id)  # waits for it
run = runs.get_run(run.id)
assert run.state == "ok", run
assert run.error is None, run
assert run.id in [one.id for one in runs.list_runs().data]
assert runs.get_chat_stream(run.id).endswith("data: [DONE]\n\n")

sessions = package.SessionsApi(client)
assert sessions.get_session(run.session_key).messages, run.session_key
assert run.session_key in [one.key for one in sessions.list_sessions().data]

responses = package.ResponsesApi(client)
response = responses.create_response(package.ResponseRequest.from_dict({"input": "hi"}))
assert response.error is None, response
assert responses.get_response(response.id).output == response.output

question = {"messages": [{"role": "user", "content": "hi"}], "user": None}
completion = package.ChatApi(client).create_chat_completion(package.ChatCompletionRequest.from_dict(question))
assert completion.choices[0].finish_reason == "stop", completion

try:
    runs.get_run("chatcmpl_unknown")
except package.exceptions.NotFoundException as error:
    code = error.data.error.code
else:
    code = None
assert code == "run_not_found", code
