package interop;

import java.time.Instant;
import java.time.ZoneId;
import java.time.format.DateTimeFormatter;
import java.util.Map;

import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.MessageSelector;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.ConsumeOrderlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.consumer.listener.MessageListenerOrderly;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;

/** A push consumer, concurrent or orderly, that prints what it gets until its standard input ends. */
public final class Consume {
    private static final Map<String, ConsumeFromWhere> FROM = Map.of(
        "first", ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET, "last", ConsumeFromWhere.CONSUME_FROM_LAST_OFFSET,
        "timestamp", ConsumeFromWhere.CONSUME_FROM_TIMESTAMP); // --since, in seconds; half an hour ago, which is the client's default

    private Consume() { }

    public static void main(String[] argv) {
        Report.main(() -> scenario(new Args(argv)));
    }

    private static void scenario(Args args) throws Exception {
        DefaultMQPushConsumer consumer = Clients.consumer(args);
        // MessageModel moved to another package in 5.x: its name stays out of this source.
        var model = consumer.getMessageModel().getDeclaringClass();
        consumer.setMessageModel(Enum.valueOf(model, args.get("model", "clustering").toUpperCase()));
        consumer.setConsumeFromWhere(FROM.get(args.get("from", "first")));
        if (args.number("since", 0) > 0) {
            consumer.setConsumeTimestamp(DateTimeFormatter.ofPattern("yyyyMMddHHmmss").withZone(ZoneId.systemDefault())
                .format(Instant.ofEpochSecond(args.number("since", 0))));
        }
        if (args.get("sql", "").isEmpty()) {
            consumer.subscribe(args.get("topic"), args.get("tags", "*"));
        } else {
            consumer.subscribe(args.get("topic"), MessageSelector.bySql(args.get("sql")));
        }
        // A rebalance right after the start can leave the broker with an older subscription than the pulls name, until
        // the next heartbeat (after 30 s by default).
        consumer.setHeartbeatBrokerInterval(3000);
        // The retry topic is made at the first heartbeat; its route is looked for every 30 s by default.
        consumer.setPollNameServerInterval(3000);
        consumer.setMaxReconsumeTimes(args.number("max-reconsume", -1));
        consumer.setConsumeThreadMin(4);
        consumer.setConsumeThreadMax(4);
        if (args.get("order", "concurrent").equals("orderly")) {
            consumer.registerMessageListener((MessageListenerOrderly) (messages, context) -> {
                Report.messages("message", messages);
                context.setSuspendCurrentQueueTimeMillis(50);
                return messages.get(0).getReconsumeTimes() < args.number("failures", 0)
                    ? ConsumeOrderlyStatus.SUSPEND_CURRENT_QUEUE_A_MOMENT : ConsumeOrderlyStatus.SUCCESS;
            });
        } else {
            consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
                Report.messages("message", messages);
                context.setDelayLevelWhenNextConsume(args.number("retry-level", 0));
                return messages.get(0).getReconsumeTimes() < args.number("failures", 0)
                    ? ConsumeConcurrentlyStatus.RECONSUME_LATER : ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
            });
        }
        consumer.start();
        Report.event("ready");
        Report.waitForEndOfInput();
        consumer.shutdown();
        Report.event("stopped");
    }
}
