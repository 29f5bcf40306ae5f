package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/apache/rocketmq-client-go/v2/primitive"
)

type fields map[string]any

var output sync.Mutex

// event prints one JSON line for the runner.
func event(name string, f fields) {
	line := fields{"event": name}
	for key, value := range f {
		line[key] = value
	}
	text, err := json.Marshal(line)
	check(err)
	output.Lock()
	defer output.Unlock()
	fmt.Println(string(text))
}

func sent(n int, body string, result *primitive.SendResult) {
	event("sent", fields{"n": n, "body": body, "id": result.MsgID, "offsetId": result.OffsetMsgID,
		"status": statusName(result.Status), "broker": result.MessageQueue.BrokerName,
		"queue": result.MessageQueue.QueueId, "offset": result.QueueOffset})
}

func statusName(status primitive.SendStatus) string {
	if status == primitive.SendOK {
		return "SEND_OK"
	}
	return fmt.Sprintf("status %d", status)
}

func messages(list []*primitive.MessageExt) {
	for _, m := range list {
		event("message", fields{"topic": m.Topic, "body": string(m.Body), "tag": m.GetTags(), "keys": m.GetKeys(),
			"color": m.GetProperty("color"), "id": m.MsgId, "broker": m.Queue.BrokerName, "queue": m.Queue.QueueId,
			"offset": m.QueueOffset, "born": m.BornTimestamp, "due": m.GetProperty("TIMER_DELIVER_MS"),
			"now": time.Now().UnixMilli()})
	}
}

// endOfInput is closed once the runner has closed our standard input: its way to say "stop".
func endOfInput() <-chan struct{} {
	closed := make(chan struct{})
	go func() {
		_, err := io.Copy(io.Discard, os.Stdin)
		check(err)
		close(closed)
	}()
	return closed
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
