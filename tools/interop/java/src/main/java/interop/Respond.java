package interop;

import java.nio.charset.StandardCharsets;

import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.utils.MessageUtil;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;

/** A consumer that replies to each request, until standard input ends. */
public final class Respond {
    private Respond() { }

    public static void main(String[] argv) {
        Report.main(() -> scenario(new Args(argv)));
    }

    private static void scenario(Args args) throws Exception {
        DefaultMQProducer producer = new DefaultMQProducer(args.get("group") + "-R");
        producer.setNamesrvAddr(args.get("namesrv"));
        producer.start();
        DefaultMQPushConsumer consumer = new DefaultMQPushConsumer(args.get("group"));
        consumer.setNamesrvAddr(args.get("namesrv"));
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        consumer.subscribe(args.get("topic"), "*");
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            for (MessageExt m : messages) {
                reply(producer, m);
            }
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        consumer.start();
        Report.event("ready");
        Report.waitForEndOfInput();
        consumer.shutdown();
        producer.shutdown();
        Report.event("stopped");
    }

    private static void reply(DefaultMQProducer producer, MessageExt m) {
        String body = "re: " + new String(m.getBody(), StandardCharsets.UTF_8);
        try {
            Message reply = MessageUtil.createReplyMessage(m, body.getBytes(StandardCharsets.UTF_8));
            producer.send(reply, 10_000);
            Report.event("replied", "body", body);
        } catch (Exception e) {
            Report.event("failed", "body", body, "error", e);
        }
    }
}
