package main

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/primitive"
	"github.com/apache/rocketmq-client-go/v2/producer"
)

// send sends --count messages (0: until standard input ends) as --mode sync, async, oneway or batch.
func send(a args) {
	options := []producer.Option{
		producer.WithNameServer(primitive.NamesrvAddr{a["namesrv"]}),
		producer.WithGroupName(a["group"]),
		producer.WithRetry(2),
		producer.WithSendMsgTimeout(10 * time.Second),
	}
	if a.number("sharding", 0) > 0 {
		options = append(options, producer.WithQueueSelector(shardingSelector{}))
	}
	if space := a.text("namespace", ""); space != "" {
		options = append(options, producer.WithNamespace(space))
	}
	if topic, ok := a["trace"]; ok {
		options = append(options, producer.WithTrace(traceTo(a, topic)))
	}
	p, err := rocketmq.NewProducer(options...)
	check(err)
	check(p.Start())
	event("ready", nil)
	switch a.text("mode", "sync") {
	case "batch":
		sendBatch(p, a)
	case "async":
		sendAsync(p, a)
	default:
		sendOneByOne(p, a)
	}
	event("done", nil)
	if _, ok := a["trace"]; ok { // traces are sent aside, and those not yet sent are lost in the shutdown
		<-endOfInput()
	}
	check(p.Shutdown())
}

// traceTo has traces written to the topic ("default": the system's).
func traceTo(a args, topic string) *primitive.TraceConfig {
	if topic == "default" {
		topic = ""
	}
	return &primitive.TraceConfig{Access: primitive.Local, TraceTopic: topic, GroupName: a["group"],
		Resolver: primitive.NewPassthroughResolver([]string{a["namesrv"]})}
}

// shardingSelector picks the queue from the number that stands in the sharding key.
type shardingSelector struct{}

func (shardingSelector) Select(m *primitive.Message, queues []*primitive.MessageQueue, _ string) *primitive.MessageQueue {
	var key int
	_, err := fmt.Sscan(m.GetShardingKey(), &key)
	check(err)
	return queues[key%len(queues)]
}

func message(a args, n int) *primitive.Message {
	body := []byte(fmt.Sprintf("%s-%05d", a.text("prefix", "m"), n))
	key := "key-" + string(body)
	for size := a.number("size", 0); len(body) < size; {
		body = append(body, byte('a'+(len(body)*7+n)%26))
	}
	m := primitive.NewMessage(a["topic"], body)
	tags := strings.Split(a["tags"], ",")
	if tag := tags[n%len(tags)]; tag != "" {
		m.WithTag(tag)
	}
	m.WithKeys([]string{key})
	m.WithProperty("color", "blågrønn 青")
	m.WithProperty("n", fmt.Sprint(n))
	if level := a.number("delay-level", 0); level > 0 {
		m.WithDelayTimeLevel(level)
	}
	if delay := a.number("delay-ms", 0); delay > 0 { // the client has no call for it, its users set the property
		m.WithProperty("TIMER_DELIVER_MS", fmt.Sprint(time.Now().UnixMilli()+int64(delay)))
	}
	if priorities := a.number("priorities", 0); priorities > 0 { // the same
		m.WithProperty("_SYS_MSG_PRIORITY_", fmt.Sprint(n%priorities))
	}
	if keys := a.number("dedupe", 0); keys > 0 {
		m.WithProperty("DEDUPE_KEY", fmt.Sprintf("once-%d", n%keys))
	}
	if keys := a.number("sharding", 0); keys > 0 {
		m.WithShardingKey(fmt.Sprint(n % keys))
	}
	return m
}

func failed(n int, m *primitive.Message, err error) {
	event("failed", fields{"n": n, "body": string(m.Body), "error": err.Error()})
}

func sendOneByOne(p rocketmq.Producer, a args) {
	stop := endOfInput()
	count := a.number("count", 1)
	for n := 0; count == 0 || n < count; n++ {
		m := message(a, n)
		body := string(m.Body) // a body over the threshold is compressed in place
		if a["mode"] == "oneway" {
			if err := p.SendOneWay(context.Background(), m); err != nil {
				failed(n, m, err)
			} else {
				event("sent", fields{"n": n, "body": body})
			}
		} else if result, err := p.SendSync(context.Background(), m); err != nil {
			failed(n, m, err)
		} else {
			sent(n, body, result)
		}
		select {
		case <-stop:
			if count == 0 {
				return
			}
		case <-time.After(time.Duration(a.number("interval", 0)) * time.Millisecond):
		}
	}
}

func sendAsync(p rocketmq.Producer, a args) {
	var open sync.WaitGroup
	for n := 0; n < a.number("count", 1); n++ {
		m := message(a, n)
		body := string(m.Body)
		open.Add(1)
		check(p.SendAsync(context.Background(), func(_ context.Context, result *primitive.SendResult, err error) {
			defer open.Done()
			if err != nil {
				failed(n, m, err)
				return
			}
			sent(n, body, result)
		}, m))
	}
	open.Wait()
}

func sendBatch(p rocketmq.Producer, a args) {
	var batch []*primitive.Message
	for n := 0; n < a.number("count", 1); n++ {
		batch = append(batch, message(a, n))
	}
	result, err := p.SendSync(context.Background(), batch...)
	check(err)
	for n, m := range batch {
		event("sent", fields{"n": n, "body": string(m.Body), "broker": result.MessageQueue.BrokerName,
			"queue": result.MessageQueue.QueueId, "offset": result.QueueOffset + int64(n)})
	}
}
