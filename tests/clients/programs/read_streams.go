// Reads streams: called with a gateway's address, a kind and a count, it prints the events of each stream as JSON.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"log"
	"net/http"
	"os"
	"strconv"

	"openclaw"
)

type line struct {
	Events []any          `json:"events"`
	Error  map[string]any `json:"error"`
}

var (
	ctx    = context.Background()
	client = openclaw.New(os.Args[1], "a-token-for-tests")
)

func question() openclaw.ChatCompletionRequest {
	body := openclaw.Ask("hi")
	weather, hour := openclaw.NewFunctionDefinition("weather"), openclaw.NewFunctionDefinition("time")
	body.SetTools([]openclaw.Tool{*openclaw.NewTool(*weather), *openclaw.NewTool(*hour)})
	body.SetSeed(1<<53 + 1)
	options := openclaw.NewStreamOptions()
	options.SetIncludeUsage(true)
	body.SetStreamOptions(*options)
	return body
}

func read[Event any](events iter.Seq2[Event, error]) line {
	found := line{Events: []any{}}
	for event, err := range events {
		var failed *openclaw.GatewayError
		if errors.As(err, &failed) {
			found.Error = map[string]any{"status": failed.Status, "code": failed.Details.Code, "message": failed.Details.Message}
		} else if err != nil {
			log.Fatal(err)
		} else {
			found.Events = append(found.Events, event)
		}
	}
	return found
}

func readStream() line {
	switch os.Args[2] {
	case "chat":
		return read(client.ChatStream(ctx, question(), http.Header{"X-Openclaw-Events": {"reasoning"}}))
	case "response":
		input := "hi"
		body := openclaw.NewResponseRequest()
		body.SetInput(openclaw.StringAsResponseRequestInput(&input))
		return read(client.ResponseEvents(ctx, *body, nil))
	}
	return read(client.RunEvents(ctx, "one", 7))
}

func main() {
	count, _ := strconv.Atoi(os.Args[3])
	for range count {
		if err := json.NewEncoder(os.Stdout).Encode(readStream()); err != nil {
			log.Fatal(err)
		}
	}
}
