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
	if a["from"] == "last" {
		from = consumer.ConsumeFromLastOffset
	}
	c, err := rocketmq.NewPushConsumer(
		consumer.WithNameServer(primitive.NamesrvAddr{a["namesrv"]}),
		consumer.WithGroupName(a["group"]),
		consumer.WithInstance(a["instance"]),
		consumer.WithConsumerModel(model),
		consumer.WithConsumeFromWhere(from),
		consumer.WithConsumerOrder(a["order"] == "orderly"),
		consumer.WithRebalanceLockInterval(time.Second),
	)
	check(err)
	selector := consumer.MessageSelector{Type: consumer.TAG, Expression: a.text("tags", "*")}
	if sql := a.text("sql", ""); sql != "" {
		selector = consumer.MessageSelector{Type: consumer.SQL92, Expression: sql}
	}
	check(c.Subscribe(a["topic"], selector,
		func(_ context.Context, list ...*primitive.MessageExt) (consumer.ConsumeResult, error) {
			messages(list)
			return consumer.ConsumeSuccess, nil
		}))
	check(c.Start())
	event("ready", nil)
	<-endOfInput()
	check(c.Shutdown())
	event("stopped", nil)
}
