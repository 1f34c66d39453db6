// Streams of a gateway that go on where they were when a connection breaks.
//
// A connection that breaks is opened again behind the last event, up to Attempts times in a row; nothing is missed, and
// nothing comes twice. An error status, and an error inside a stream, is a *GatewayError.

package openclaw

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Attempts is how often a stream is opened again without getting an event.
const Attempts = 5

const (
	pause         = 200 * time.Millisecond
	longestLine   = 64 << 20
	endOfStream   = "[DONE]"
	runHeader     = "X-Openclaw-Run-Id"
	disconnectKey = "X-Openclaw-On-Disconnect"
)

// New returns a client of the gateway at a base URL.
func New(baseURL, token string) *APIClient {
	configuration := NewConfiguration()
	configuration.Servers = ServerConfigurations{{URL: baseURL}}
	configuration.AddDefaultHeader("Authorization", "Bearer "+token)
	return NewAPIClient(configuration)
}

// Text returns the content of a user's message.
func Text(text string) UserMessageContent { return StringAsUserMessageContent(&text) }

// Ask returns the request that asks the default agent a question.
func Ask(question string) ChatCompletionRequest {
	message := NewUserMessage("user", Text(question))
	return *NewChatCompletionRequest([]RequestMessage{UserMessageAsRequestMessage(message)})
}

// GatewayError is an error that the gateway has answered with; Status is 0 if it came inside a stream.
type GatewayError struct {
	Status  int
	Details ErrorDetails
}

func (e *GatewayError) Error() string { return string(e.Details.Code) + ": " + e.Details.Message }

// stream is what a stream needs across its connections: what to request, and what the answers say.
type stream[Event any] struct {
	client    *APIClient
	request   func() (method, path string, headers http.Header, body any)
	opened    func(http.Header)
	decode    func(fields map[string]string) (Event, error)
	resumable bool
	ended     bool
	failures  int
}

// ChatStream runs an agent on a conversation and yields the chunks of its answer. The run goes on while no client is
// connected.
func (c *APIClient) ChatStream(ctx context.Context, body ChatCompletionRequest, headers http.Header) iter.Seq2[ChatCompletionChunk, error] {
	runID, after := "", int64(0)
	sent := with(body, map[string]any{"stream": true})
	s := &stream[ChatCompletionChunk]{client: c}
	s.request = func() (string, string, http.Header, any) {
		if runID == "" {
			return http.MethodPost, "/v1/chat/completions", merged(http.Header{disconnectKey: {"continue"}}, headers), sent
		}
		query := "?after=" + strconv.FormatInt(after, 10)
		if options, ok := sent["stream_options"].(map[string]any); ok && options["include_usage"] == true {
			query += "&include_usage=true"
		}
		return http.MethodGet, "/v1/runs/" + url.PathEscape(runID) + "/chat-stream" + query, nil, nil
	}
	s.opened = func(head http.Header) {
		if runID == "" {
			runID = head.Get(runHeader)
		}
		s.resumable = runID != ""
	}
	s.decode = func(fields map[string]string) (ChatCompletionChunk, error) {
		var chunk ChatCompletionChunk
		var failed ErrorEnvelope
		if json.Unmarshal([]byte(fields["data"]), &failed) == nil {
			return chunk, &GatewayError{Details: failed.Error}
		}
		err := json.Unmarshal([]byte(fields["data"]), &chunk)
		if chunk.Openclaw != nil && chunk.Openclaw.SequenceNumber != nil {
			after = *chunk.Openclaw.SequenceNumber
		}
		return chunk, err
	}
	return s.events(ctx)
}

// RunEvents yields the events of a run behind the number after, until run.ended.
func (c *APIClient) RunEvents(ctx context.Context, runID string, after int64) iter.Seq2[RunEvent, error] {
	last := strconv.FormatInt(after, 10)
	s := &stream[RunEvent]{client: c, resumable: true, opened: func(http.Header) {}}
	s.request = func() (string, string, http.Header, any) {
		return http.MethodGet, "/v1/runs/" + url.PathEscape(runID) + "/events", http.Header{"Last-Event-Id": {last}}, nil
	}
	s.decode = func(fields map[string]string) (event RunEvent, err error) {
		last, s.ended = fields["id"], fields["event"] == "run.ended"
		err = json.Unmarshal([]byte(fields["data"]), &event)
		return event, err
	}
	return s.events(ctx)
}

// ResponseEvents creates a response in the background and yields its events.
func (c *APIClient) ResponseEvents(ctx context.Context, body ResponseRequest, headers http.Header) iter.Seq2[ResponseEvent, error] {
	id, behind := "", ""
	s := &stream[ResponseEvent]{client: c}
	s.request = func() (string, string, http.Header, any) {
		if id == "" {
			return http.MethodPost, "/v1/responses", headers, with(body, map[string]any{"stream": true, "background": true})
		}
		return http.MethodGet, "/v1/responses/" + url.PathEscape(id) + "?stream=true" + behind, nil, nil
	}
	s.opened = func(head http.Header) {
		if id == "" {
			id = strings.Replace(head.Get(runHeader), "chatcmpl_", "resp_", 1)
		}
		s.resumable = id != ""
	}
	s.decode = func(fields map[string]string) (event ResponseEvent, err error) {
		var number struct {
			SequenceNumber int64 `json:"sequence_number"`
		}
		if err = json.Unmarshal([]byte(fields["data"]), &number); err == nil {
			behind = "&starting_after=" + strconv.FormatInt(number.SequenceNumber, 10)
			err = json.Unmarshal([]byte(fields["data"]), &event)
		}
		return event, err
	}
	return s.events(ctx)
}

func (s *stream[Event]) events(ctx context.Context) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		var none Event
		for !s.ended {
			goOn, err := s.connect(ctx, yield)
			if !goOn || s.ended {
				return
			}
			var failed *GatewayError
			s.failures++
			if errors.As(err, &failed) || !s.resumable || s.failures > Attempts || ctx.Err() != nil {
				yield(none, err)
				return
			}
			select {
			case <-ctx.Done():
			case <-time.After(pause << (s.failures - 1)):
			}
		}
	}
}

// connect reads one connection; goOn is false once the reader wants no more.
func (s *stream[Event]) connect(ctx context.Context, yield func(Event, error) bool) (goOn bool, err error) {
	body, err := s.open(ctx)
	if err != nil {
		return true, err
	}
	defer body.Close()
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, longestLine)
	fields := map[string]string{}
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), ":")
		if lines.Text() != "" {
			fields[name] = strings.TrimPrefix(value, " ")
			continue
		}
		data, found := fields["data"]
		if !found {
			continue
		}
		if s.failures = 0; data == endOfStream {
			s.ended = true
			return true, nil
		}
		event, err := s.decode(fields)
		if fields = map[string]string{}; err != nil {
			yield(event, err)
			return false, nil
		}
		if !yield(event, nil) {
			return false, nil
		}
	}
	return true, errors.Join(lines.Err(), io.ErrUnexpectedEOF)
}

func (s *stream[Event]) open(ctx context.Context) (io.ReadCloser, error) {
	method, path, headers, content := s.request()
	var body io.Reader
	if content != nil {
		encoded, err := json.Marshal(content)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(encoded)
	}
	request, err := http.NewRequestWithContext(ctx, method, s.client.cfg.Servers[0].URL+path, body)
	if err != nil {
		return nil, err
	}
	request.Header = merged(http.Header{"Content-Type": {"application/json"}}, headers)
	for name, value := range s.client.cfg.DefaultHeader {
		request.Header.Set(name, value)
	}
	response, err := s.client.cfg.HTTPClient.Do(request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		defer response.Body.Close()
		var envelope ErrorEnvelope
		if err := json.NewDecoder(response.Body).Decode(&envelope); err != nil {
			return nil, err
		}
		return nil, &GatewayError{Status: response.StatusCode, Details: envelope.Error}
	}
	s.opened(response.Header)
	return response.Body, nil
}

func merged(headers, more http.Header) http.Header {
	for name, values := range more {
		headers[http.CanonicalHeaderKey(name)] = values
	}
	return headers
}

// with returns a body and more fields, as JSON has them.
func with(body any, more map[string]any) map[string]any {
	var fields map[string]any
	encoded, err := json.Marshal(body)
	if err == nil {
		err = json.Unmarshal(encoded, &fields)
	}
	if err != nil {
		panic(err) // what was made from JSON's types is JSON
	}
	for name, value := range more {
		fields[name] = value
	}
	return fields
}
