"""OpenAI's Responses API: its requests, its response object, and its stream of events."""
