package interop;

import java.nio.charset.StandardCharsets;

import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.message.Message;

/** Sends {@code --count} messages for {@code --delay-ms} later and recalls every second one (5.x only: by reflection). */
public final class Recall {
    private Recall() { }

    public static void main(String[] argv) {
        Report.main(() -> scenario(new Args(argv)));
    }

    private static void scenario(Args args) throws Exception {
        DefaultMQProducer producer = new DefaultMQProducer(args.get("group"));
        producer.setNamesrvAddr(args.get("namesrv"));
        producer.setSendMsgTimeout(10_000);
        producer.start();
        Report.event("ready");
        for (int n = 0; n < args.number("count", 1); n++) {
            String body = String.format("m-%05d", n);
            Message m = new Message(args.get("topic"), body.getBytes(StandardCharsets.UTF_8));
            m.setKeys("key-" + body);
            m.putUserProperty("color", "blågrønn 青");
            Timers.set(m, args);
            SendResult result = producer.send(m);
            Report.sent(n, body, result);
            if (n % 2 == 1) {
                recall(producer, args.get("topic"), n, body, result);
            }
        }
        refused(producer, args.get("topic"));
        Report.event("done");
        producer.shutdown();
    }

    private static String recall(DefaultMQProducer producer, String topic, String handle) throws Exception {
        return (String) DefaultMQProducer.class.getMethod("recallMessage", String.class, String.class)
            .invoke(producer, topic, handle);
    }

    private static void recall(DefaultMQProducer producer, String topic, int n, String body, SendResult result)
        throws Exception {
        String handle = (String) SendResult.class.getMethod("getRecallHandle").invoke(result);
        String id = recall(producer, topic, handle);
        Report.event("recalled", "n", n, "body", body, "id", id, "same", id.equals(result.getMsgId()));
    }

    private static void refused(DefaultMQProducer producer, String topic) {
        try {
            Report.event("recalled-nothing", "id", recall(producer, topic, "bm90IGEgaGFuZGxl"));
        } catch (Exception e) {
            Report.event("refused", "error", String.valueOf(e.getCause()));
        }
    }
}
