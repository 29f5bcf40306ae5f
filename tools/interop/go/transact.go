package main

import (
	"bytes"
	"context"
	"strconv"
	"time"

	"github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/primitive"
	"github.com/apache/rocketmq-client-go/v2/producer"
)

// listener ends two of four transactions at once, and the other two when the broker asks.
type listener struct{}

func number(body []byte) int {
	n, err := strconv.Atoi(string(body[bytes.LastIndexByte(body, '-')+1:]))
	check(err)
	return n
}

func outcome(n int) primitive.LocalTransactionState {
	if n%2 == 0 {
		return primitive.CommitMessageState
	}
	return primitive.RollbackMessageState
}

func (listener) ExecuteLocalTransaction(m *primitive.Message) primitive.LocalTransactionState {
	if n := number(m.Body); n%4 < 2 {
		return outcome(n)
	}
	return primitive.UnknowState
}

func (listener) CheckLocalTransaction(m *primitive.MessageExt) primitive.LocalTransactionState {
	event("checked", fields{"body": string(m.Body), "topic": m.Topic, "transaction": m.TransactionId})
	return outcome(number(m.Body))
}

// transact sends --count messages in transactions, and answers checks until standard input ends.
func transact(a args) {
	p, err := rocketmq.NewTransactionProducer(listener{},
		producer.WithNameServer(primitive.NamesrvAddr{a["namesrv"]}),
		producer.WithGroupName(a["group"]),
		producer.WithSendMsgTimeout(10*time.Second),
	)
	check(err)
	check(p.Start())
	event("ready", nil)
	for n := 0; n < a.number("count", 1); n++ {
		m := message(a, n)
		body := string(m.Body)
		result, err := p.SendMessageInTransaction(context.Background(), m)
		if err != nil {
			failed(n, m, err)
			continue
		}
		sent(n, body, result.SendResult)
	}
	event("done", nil)
	<-endOfInput()
	check(p.Shutdown())
	event("stopped", nil)
}
