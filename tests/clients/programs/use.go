// What a Go program does with the client: called with a gateway's address, it prints a line for each.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os"
	"time"

	"openclaw"
)

var (
	ctx    = context.Background()
	client = openclaw.New(os.Args[1], os.Getenv("OPENCLAW_GATEWAY_TOKEN"))
	slow   = http.Header{"X-Openclaw-Model": {"scripted/slow"}}
)

func user(text string) openclaw.RequestMessage {
	return openclaw.UserMessageAsRequestMessage(openclaw.NewUserMessage("user", openclaw.Text(text)))
}

func ask(messages ...openclaw.RequestMessage) openclaw.ChatCompletionRequest {
	return *openclaw.NewChatCompletionRequest(messages)
}

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}

func complete(body openclaw.ChatCompletionRequest, session, model, key string) *openclaw.ChatCompletion {
	request := client.ChatAPI.CreateChatCompletion(ctx).ChatCompletionRequest(body)
	answer, _, err := request.XOpenclawSessionKey(session).XOpenclawModel(model).IdempotencyKey(key).Execute()
	return must(answer, err)
}

func text(answer *openclaw.ChatCompletion) string {
	return answer.Choices[0].Message.GetContent()
}

func showChat() {
	fmt.Println("chat:", text(complete(ask(user("hi")), "", "", "")))
}

func showStream() {
	whole := ""
	for chunk, err := range client.ChatStream(ctx, openclaw.Ask("hi"), slow) {
		for _, choice := range must(chunk, err).Choices {
			whole += choice.Delta.GetContent()
		}
	}
	fmt.Println("stream:", whole)
}

func showTool() {
	tools := []openclaw.Tool{*openclaw.NewTool(*openclaw.NewFunctionDefinition("weather"))}
	body := ask(user("how is it outside?"))
	body.SetTools(tools)
	call := complete(body, "", "scripted/tools", "").Choices[0].Message.ToolCalls[0]
	called := openclaw.NewAssistantMessage("assistant")
	function := openclaw.NewToolCallFunction(call.Function.Name)
	function.SetArguments(call.Function.Arguments)
	called.SetToolCalls([]openclaw.ToolCall{*openclaw.NewToolCall(call.Id, *function)})
	sunny := "sunny"
	result := openclaw.NewToolMessage("tool", call.Id)
	result.SetContent(openclaw.StringAsToolMessageContent(&sunny))
	body.Messages = append(body.Messages,
		openclaw.AssistantMessageAsRequestMessage(called), openclaw.ToolMessageAsRequestMessage(result))
	fmt.Println("tool:", call.Function.Name, text(complete(body, "", "scripted/tools", "")))
}

func showRun() {
	input := "hi"
	body := openclaw.NewRunRequest(openclaw.StringAsRunRequestInput(&input))
	body.SetModel("scripted/slow")
	run, _, err := client.RunsAPI.CreateRun(ctx).RunRequest(*body).Execute()
	whole := ""
	for event, err := range client.RunEvents(ctx, must(run, err).Id, 0) {
		if event := must(event, err); event.TextDeltaEvent != nil {
			whole += event.TextDeltaEvent.Text
		} else if event.RunEndedEvent != nil {
			fmt.Println("run:", whole, event.RunEndedEvent.Type, event.RunEndedEvent.State)
		}
	}
}

func showResponse() {
	input, model := "hi", "openclaw"
	body := openclaw.NewResponseRequest()
	body.SetInput(openclaw.StringAsResponseRequestInput(&input))
	body.SetModel(model)
	whole := ""
	for event, err := range client.ResponseEvents(ctx, *body, slow) {
		if event := must(event, err); event.ResponseTextDelta != nil {
			whole += event.ResponseTextDelta.Delta
		} else if event.ResponseStateEvent != nil && event.ResponseStateEvent.Type == "response.completed" {
			fmt.Println("response:", whole, event.ResponseStateEvent.Type)
		}
	}
}

func showSession() {
	key := fmt.Sprintf("client-%d", time.Now().UnixNano())
	complete(ask(user("one")), key, "", "")
	complete(ask(user("two")), key, "", "")
	session, _, err := client.SessionsAPI.GetSession(ctx, key).Execute()
	fork, _, failed := client.SessionsAPI.CreateFork(ctx, key).ForkRequest(*openclaw.NewForkRequest()).Execute()
	fmt.Println("session:", must(session, err).MessageCount, must(fork, failed).MessageCount)
}

func showError() {
	body := ask(user("hi"))
	body.SetModel("gpt-4o")
	_, response, err := client.ChatAPI.CreateChatCompletion(ctx).ChatCompletionRequest(body).Execute()
	var failed *openclaw.GenericOpenAPIError
	if !errors.As(err, &failed) {
		log.Fatal(err)
	}
	details := failed.Model().(openclaw.ErrorEnvelope).Error
	fmt.Println("error:", response.StatusCode, details.Code, details.GetParam())
}

func showRetry() {
	key := fmt.Sprintf("retry-%d", time.Now().UnixNano())
	if complete(ask(user("hi")), "", "", key).Id == complete(ask(user("hi")), "", "", key).Id {
		fmt.Println("retry: True")
	}
}

func main() {
	for _, show := range []func(){showChat, showStream, showTool, showRun, showResponse, showSession, showError, showRetry} {
		show()
	}
}
