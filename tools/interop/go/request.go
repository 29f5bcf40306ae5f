package main

import (
	"context"
	"fmt"
	"time"

	"github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/primitive"
	"github.com/apache/rocketmq-client-go/v2/producer"
)

// beforeHeartbeat: the first heartbeat goes out before the producer knows a broker, and the next one after 30 s; until
// then no broker knows where its replies are to go.
const beforeHeartbeat = 33 * time.Second

// request sends --count requests one after the other, and reports the reply to each.
func request(a args) {
	p, err := rocketmq.NewProducer(
		producer.WithNameServer(primitive.NamesrvAddr{a["namesrv"]}),
		producer.WithGroupName(a["group"]),
	)
	check(err)
	check(p.Start())
	_, err = p.SendSync(context.Background(), primitive.NewMessage(a["topic"], []byte("warm-up")))
	check(err)
	time.Sleep(beforeHeartbeat)
	event("ready", nil)
	for n := 0; n < a.number("count", 1); n++ {
		body := fmt.Sprintf("request-%d", n)
		reply, err := p.Request(context.Background(), 20*time.Second, primitive.NewMessage(a["topic"], []byte(body)))
		if err != nil {
			event("failed", fields{"n": n, "error": err.Error()})
			continue
		}
		event("reply", fields{"n": n, "body": string(reply.Body)})
	}
	event("done", nil)
	check(p.Shutdown())
}
