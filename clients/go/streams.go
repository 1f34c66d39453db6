// Streams of a gateway that go on where they were when a connection breaks.
//
// A connection that breaks is opened again behind the last event, up to Attempts times in a row, also where the answer is
// that the gateway, or a proxy before it, is busy or gone for a while; nothing is missed, and nothing comes twice. An
// error status, and an error inside a stream, is a *GatewayError.

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
	longestPause  = 30 * time.Second
	longestLine   = 64 << 20
	endOfStream   = "[DONE]"
	runHeader     = "X-Openclaw-Run-Id"
	disconnectKey = "X-Openclaw-On-Disconnect"
)

// New returns a client of the gateway at a base URL.
func New(baseURL, token string) *APIClient {
	configuration := NewConfiguration()
	configuration.Servers = ServerConfigurations{{URL: strings.TrimRight(baseURL, "/")}}
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

// stream is what a stream needs across its connections: what to request, and what the answers say. An event that has come
// before is nil.
type stream[Event any] struct {
	client    *APIClient
	request   func() (method, path string, headers http.Header, body any)
	opened    func(http.Header)
	decode    func(fields map[string]string) (*Event, error)
	resumable bool
	ended     bool
	failures  int
}

// ChatStream runs an agent on a conversation and yields the chunks of its answer. The run goes on while no client is
// connected.
func (c *APIClient) ChatStream(ctx context.Context, body ChatCompletionRequest, headers http.Header) iter.Seq2[ChatCompletionChunk, error] {
	runID, progress := "", chatProgress{calls: map[int64]int{}}
	sent := with(body, map[string]any{"stream": true})
	headers = merged(http.Header{disconnectKey: {"continue"}}, headers)
	s := &stream[ChatCompletionChunk]{client: c}
	s.request = func() (string, string, http.Header, any) {
		if runID == "" {
			return http.MethodPost, "/v1/chat/completions", headers, sent
		}
		query := "?after=" + strconv.FormatInt(progress.after, 10)
		if options, ok := sent["stream_options"].(map[string]any); ok && options["include_usage"] == true {
			query += "&include_usage=true"
		}
		return http.MethodGet, "/v1/runs/" + url.PathEscape(runID) + "/chat-stream" + query, headers, nil
	}
	s.opened = func(head http.Header) {
		progress.repeated = map[int64]int{}
		if runID == "" {
			runID = head.Get(runHeader)
		}
		s.resumable = runID != ""
	}
	s.decode = func(fields map[string]string) (*ChatCompletionChunk, error) {
		var chunk ChatCompletionChunk
		var failed ErrorEnvelope
		if json.Unmarshal([]byte(fields["data"]), &failed) == nil {
			return nil, &GatewayError{Details: failed.Error}
		}
		if err := json.Unmarshal([]byte(fields["data"]), &chunk); err != nil || !progress.isNew(&chunk) {
			return nil, err
		}
		return &chunk, nil
	}
	return s.events(ctx)
}

// chatProgress is what has come of a chat stream across its connections.
//
// A resumed stream begins with the role. It repeats what has no number behind it: the beginning of a call, in other
// pieces, and the usage.
type chatProgress struct {
	after    int64
	number   int64
	hasRole  bool
	calls    map[int64]int // bytes of their arguments
	repeated map[int64]int // of these, what this connection has brought
}

// isNew cuts what has come before from a chunk, and returns whether there is more in it.
func (p *chatProgress) isNew(chunk *ChatCompletionChunk) bool {
	number := chunk.Openclaw.GetSequenceNumber()
	if 0 < number && number <= p.number {
		return false
	}
	p.number = max(number, p.number)
	if number > 0 || len(chunk.Choices) == 0 {
		p.after = p.number
	}
	isNew := true
	for _, choice := range chunk.Choices {
		if number > 0 && choice.GetFinishReason() != "" {
			p.after = number - 1 // the usage comes behind the end, without a number
		}
		if choice.Delta.Role != nil {
			isNew, p.hasRole = !p.hasRole, true
		}
		for i := range choice.Delta.ToolCalls {
			isNew = p.cut(&choice.Delta.ToolCalls[i]) || number > 0
		}
	}
	return isNew
}

func (p *chatProgress) cut(call *ToolCallDelta) bool {
	text := call.Function.Arguments
	have, known := p.calls[call.Index]
	begin := p.repeated[call.Index]
	p.repeated[call.Index] = begin + len(text)
	p.calls[call.Index] = max(begin+len(text), have)
	call.Function.Arguments = text[min(max(have-begin, 0), len(text)):]
	return !known || call.Function.Arguments != ""
}

// RunEvents yields the events of a run behind the number after, until run.ended.
func (c *APIClient) RunEvents(ctx context.Context, runID string, after int64) iter.Seq2[RunEvent, error] {
	last := strconv.FormatInt(after, 10)
	s := &stream[RunEvent]{client: c, resumable: true, opened: func(http.Header) {}}
	s.request = func() (string, string, http.Header, any) {
		return http.MethodGet, "/v1/runs/" + url.PathEscape(runID) + "/events", http.Header{"Last-Event-Id": {last}}, nil
	}
	s.decode = func(fields map[string]string) (*RunEvent, error) {
		var event RunEvent
		last, s.ended = fields["id"], fields["event"] == "run.ended"
		err := json.Unmarshal([]byte(fields["data"]), &event)
		return &event, err
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
		return http.MethodGet, "/v1/responses/" + url.PathEscape(id) + "?stream=true" + behind, headers, nil
	}
	s.opened = func(head http.Header) {
		if id == "" {
			id = strings.Replace(head.Get(runHeader), "chatcmpl_", "resp_", 1)
		}
		s.resumable = id != ""
	}
	s.decode = func(fields map[string]string) (*ResponseEvent, error) {
		var event ResponseEvent
		var number struct {
			SequenceNumber int64 `json:"sequence_number"`
		}
		err := json.Unmarshal([]byte(fields["data"]), &number)
		if err == nil {
			behind = "&starting_after=" + strconv.FormatInt(number.SequenceNumber, 10)
			err = json.Unmarshal([]byte(fields["data"]), &event)
		}
		return &event, err
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
			wait := pause << (s.failures - 1)
			if errors.As(err, &failed) {
				wait = max(wait, min(failed.RetryAfter, longestPause))
			}
			isFinal := failed != nil && !failed.isTemporary()
			if isFinal || !s.resumable || s.failures > Attempts || ctx.Err() != nil {
				yield(none, err)
				return
			}
			select {
			case <-ctx.Done():
			case <-time.After(wait):
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
	lines.Split(lineSplitter())
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
		if data == endOfStream {
			s.ended = true
			return true, nil
		}
		event, err := s.decode(fields)
		if fields = map[string]string{}; err != nil {
			var none Event
			yield(none, err)
			return false, nil
		}
		if event == nil {
			continue
		}
		if s.failures = 0; !yield(*event, nil) {
			return false, nil
		}
	}
	return true, errors.Join(lines.Err(), io.ErrUnexpectedEOF)
}

// lineSplitter returns a function for a bufio.Scanner that ends lines at CR, LF and CRLF; a line without an end is left
// out.
func lineSplitter() bufio.SplitFunc {
	afterReturn := false
	return func(data []byte, _ bool) (int, []byte, error) {
		begin := 0
		if afterReturn && len(data) > 0 && data[0] == '\n' {
			begin = 1
		}
		afterReturn = afterReturn && len(data) == 0
		length := bytes.IndexAny(data[begin:], "\r\n")
		if length < 0 {
			return begin, nil, nil
		}
		end := begin + length
		afterReturn = data[end] == '\r'
		return end + 1, data[begin:end], nil
	}
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
	switch response.StatusCode {
	case http.StatusOK:
	case http.StatusNoContent:
		s.ended = true
	default:
		defer response.Body.Close()
		return nil, errorOf(response)
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

// with returns a body and more fields, as JSON has them; numbers stay as they are written.
func with(body any, more map[string]any) map[string]any {
	var fields map[string]any
	encoded, err := json.Marshal(body)
	if err == nil {
		decoder := json.NewDecoder(bytes.NewReader(encoded))
		decoder.UseNumber()
		err = decoder.Decode(&fields)
	}
	if err != nil {
		panic(err) // what was made from JSON's types is JSON
	}
	for name, value := range more {
		fields[name] = value
	}
	return fields
}
