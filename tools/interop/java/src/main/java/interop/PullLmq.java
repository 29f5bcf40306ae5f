package interop;

import java.nio.charset.StandardCharsets;
import java.util.Set;

import org.apache.rocketmq.client.consumer.DefaultMQPullConsumer;
import org.apache.rocketmq.client.consumer.PullResult;
import org.apache.rocketmq.client.consumer.PullStatus;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

/** Reads the light queue {@code --lmq} of the broker that has {@code --topic}, and tells its bounds. */
public final class PullLmq {
    private PullLmq() { }

    public static void main(String[] argv) {
        Report.main(() -> scenario(new Args(argv)));
    }

    private static void scenario(Args args) throws Exception {
        DefaultMQPullConsumer consumer = new DefaultMQPullConsumer(args.get("group"));
        consumer.setNamesrvAddr(args.get("namesrv"));
        consumer.start();
        MessageQueue queue = new MessageQueue(args.get("lmq"), broker(consumer, args.get("topic")), 0);
        for (long offset = 0; ; ) {
            PullResult result = consumer.pull(queue, "*", offset, 7);
            if (result.getPullStatus() != PullStatus.FOUND) {
                break;
            }
            for (MessageExt m : result.getMsgFoundList()) {
                Report.event("message", "body", new String(m.getBody(), StandardCharsets.UTF_8), "topic", m.getTopic(),
                    "dispatched", m.getProperty("INNER_MULTI_QUEUE_OFFSET"), "keys", m.getKeys(),
                    "color", m.getUserProperty("color"), "offset", m.getQueueOffset());
            }
            offset = result.getNextBeginOffset();
        }
        consumer.getOffsetStore().updateConsumeOffsetToBroker(queue, 3, false);
        long committed = consumer.fetchConsumeOffset(queue, true);
        Report.event("bounds", "min", consumer.minOffset(queue), "max", consumer.maxOffset(queue),
            "committed", committed);
        Report.event("stopped");
        consumer.shutdown();
    }

    /** A light queue has no route: the client learns where its broker is from a pull of an ordinary queue. */
    private static String broker(DefaultMQPullConsumer consumer, String topic) throws Exception {
        Set<MessageQueue> queues = consumer.fetchSubscribeMessageQueues(topic);
        MessageQueue first = queues.iterator().next();
        consumer.pull(first, "*", 0, 1);
        return first.getBrokerName();
    }
}
