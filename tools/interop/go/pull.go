package main

import (
	"context"
	"time"

	"github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/consumer"
	"github.com/apache/rocketmq-client-go/v2/primitive"
)

// pull reads queues 0..--queues of --broker from offset --seek with explicit pulls, up to --max messages.
func pull(a args) {
	c, err := rocketmq.NewPullConsumer(
		consumer.WithNameServer(primitive.NamesrvAddr{a["namesrv"]}),
		consumer.WithGroupName(a["group"]),
		consumer.WithInstance(a["instance"]),
	)
	check(err)
	check(c.Subscribe(a["topic"], consumer.MessageSelector{Type: consumer.TAG, Expression: "*"}))
	check(c.Start())
	event("ready", nil)
	for id := 0; id < a.number("queues", 4); id++ {
		queue := &primitive.MessageQueue{Topic: a["topic"], BrokerName: a["broker"], QueueId: id}
		pullQueue(c, queue, int64(a.number("seek", 0)))
	}
	event("stopped", nil)
	check(c.Shutdown())
}

func pullQueue(c rocketmq.PullConsumer, queue *primitive.MessageQueue, offset int64) {
	for {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		result, err := c.PullFrom(ctx, queue, offset, 16)
		cancel()
		check(err)
		if result.Status != primitive.PullFound {
			return
		}
		messages(result.GetMessageExts())
		offset = result.NextBeginOffset
		if offset >= result.MaxOffset {
			return
		}
	}
}
