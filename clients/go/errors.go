// The errors of answers.

package openclaw

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"
)

// GatewayError is an error that the gateway has answered with; Status is 0 if it came inside a stream. A request may be
// sent again after RetryAfter, where the gateway says so.
type GatewayError struct {
	Status     int
	Details    ErrorDetails
	RetryAfter time.Duration
}

func (e *GatewayError) Error() string { return string(e.Details.Code) + ": " + e.Details.Message }

func (e *GatewayError) isTemporary() bool {
	switch e.Status {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// errorOf reads the error of an answer. One that is not the gateway's, such as a proxy's page, is internal_error with the
// phrase of its status.
func errorOf(response *http.Response) *GatewayError {
	var envelope ErrorEnvelope
	if json.NewDecoder(response.Body).Decode(&envelope) != nil {
		envelope.Error = *NewErrorDetails(response.Status, ERRORTYPE_API_ERROR, NullableString{}, ERRORCODE_INTERNAL_ERROR)
	}
	seconds, _ := strconv.Atoi(response.Header.Get("Retry-After"))
	return &GatewayError{response.StatusCode, envelope.Error, time.Duration(seconds) * time.Second}
}
