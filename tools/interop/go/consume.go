package main

import (
	"context"
	"time"

	"github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/consumer"
	"github.com/apache/rocketmq-client-go/v2/primitive"
)

// consume runs a push consumer, concurrent or orderly, that prints what it gets until its standard input ends.
func consume(a args) {
	model, from := consumer.Clustering, consumer.ConsumeFromFirstOffset
	if a["model"] == "broadcasting" {
		model = consumer.BroadCasting
	}
	switch a["from"] {
	case "last":
		from = consumer.ConsumeFromLastOffset
	case "timestamp":
		from = consumer.ConsumeFromTimestamp
	}
	options := []consumer.Option{
		consumer.WithNameServer(primitive.NamesrvAddr{a["namesrv"]}),
		consumer.WithGroupName(a["group"]),
		consumer.WithInstance(a["instance"]),
		consumer.WithConsumerModel(model),
		consumer.WithConsumeFromWhere(from),
		consumer.WithConsumerOrder(a["order"] == "orderly"),
		consumer.WithRebalanceLockInterval(time.Second),
		consumer.WithMaxReconsumeTimes(int32(a.number("max-reconsume", -1))),
		consumer.WithSuspendCurrentQueueTimeMillis(50 * time.Millisecond),
	}
	if since := a.number("since", 0); since > 0 { // the client takes it for UTC
		options = append(options, consumer.WithConsumeTimestamp(time.Unix(int64(since), 0).UTC().Format("20060102150405")))
	}
	if space := a.text("namespace", ""); space != "" {
		options = append(options, consumer.WithNamespace(space))
	}
	if topic, ok := a["trace"]; ok {
		options = append(options, consumer.WithTrace(traceTo(a, topic)))
	}
	c, err := rocketmq.NewPushConsumer(options...)
	check(err)
	selector := consumer.MessageSelector{Type: consumer.TAG, Expression: a.text("tags", "*")}
	if sql := a.text("sql", ""); sql != "" {
		selector = consumer.MessageSelector{Type: consumer.SQL92, Expression: sql}
	}
	check(c.Subscribe(a["topic"], selector,
		func(ctx context.Context, list ...*primitive.MessageExt) (consumer.ConsumeResult, error) {
			messages(list)
			return verdict(ctx, a, list[0]), nil
		}))
	check(c.Start())
	event("ready", nil)
	<-endOfInput()
	check(c.Shutdown())
	event("stopped", nil)
}

// verdict fails the first --failures deliveries of each message.
func verdict(ctx context.Context, a args, m *primitive.MessageExt) consumer.ConsumeResult {
	if int(m.ReconsumeTimes) >= a.number("failures", 0) {
		return consumer.ConsumeSuccess
	}
	if a["order"] == "orderly" {
		return consumer.SuspendCurrentQueueAMoment
	}
	if concurrently, ok := primitive.GetConcurrentlyCtx(ctx); ok {
		concurrently.DelayLevelWhenNextConsume = a.number("retry-level", 0)
	}
	return consumer.ConsumeRetryLater
}
