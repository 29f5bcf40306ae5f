package interop;

import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import java.util.concurrent.atomic.AtomicBoolean;

import org.apache.rocketmq.client.consumer.DefaultLitePullConsumer;
import org.apache.rocketmq.client.consumer.MessageSelector;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

/**
 * A lite pull consumer. {@code --seek N} assigns all queues and begins each at offset N; without it the topic is
 * subscribed to. Stops by itself after {@code --max} messages (what was polled is committed), or at end of input.
 */
public final class LitePull {
    private LitePull() { }

    public static void main(String[] argv) {
        Report.main(() -> scenario(new Args(argv)));
    }

    private static void scenario(Args args) throws Exception {
        DefaultLitePullConsumer consumer = new DefaultLitePullConsumer(args.get("group"));
        consumer.setNamesrvAddr(args.get("namesrv"));
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        consumer.setAutoCommit(false);
        int seek = args.number("seek", -1);
        if (seek < 0) {
            String sql = args.get("sql", "");
            consumer.subscribe(args.get("topic"), sql.isEmpty() ? MessageSelector.byTag("*") : MessageSelector.bySql(sql));
        }
        consumer.start();
        if (seek >= 0) {
            assign(consumer, args.get("topic"), seek);
        }
        Report.event("ready");
        poll(consumer, args.number("max", Integer.MAX_VALUE));
        consumer.commitSync();
        consumer.shutdown();
        Report.event("stopped");
    }

    private static void assign(DefaultLitePullConsumer consumer, String topic, int offset) throws Exception {
        Collection<MessageQueue> queues = new ArrayList<>(consumer.fetchMessageQueues(topic));
        consumer.assign(queues);
        for (MessageQueue queue : queues) {
            seek(consumer, queue, offset);
        }
    }

    /** A seek interrupts the client's own pulls, which may close the connection under another seek's request. */
    private static void seek(DefaultLitePullConsumer consumer, MessageQueue queue, int offset) throws Exception {
        for (int attempt = 1; ; attempt++) {
            try {
                consumer.seek(queue, offset);
                return;
            } catch (MQClientException e) {
                if (attempt == 10) {
                    throw e;
                }
                Thread.sleep(100);
            }
        }
    }

    private static void poll(DefaultLitePullConsumer consumer, int max) {
        AtomicBoolean stopped = new AtomicBoolean();
        Report.onEndOfInput(() -> stopped.set(true));
        for (int seen = 0; seen < max && !stopped.get(); ) {
            List<MessageExt> messages = consumer.poll(200);
            Report.messages("message", messages);
            seen += messages.size();
        }
    }
}
