package interop;

import java.nio.charset.StandardCharsets;

import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.message.Message;

/** Sends {@code --count} requests, one after the other, and prints the replies. */
public final class Request {
    private Request() { }

    public static void main(String[] argv) {
        Report.main(() -> scenario(new Args(argv)));
    }

    /** A request that finds another heartbeat under way sends none, and its reply does not find the client: the first
     *  one that is answered says that the broker knows it. */
    private static void connect(DefaultMQProducer producer, String topic) throws Exception {
        for (int attempt = 1; ; attempt++) {
            try {
                producer.request(new Message(topic, "warm-up".getBytes(StandardCharsets.UTF_8)), 3_000);
                return;
            } catch (Exception e) {
                if (attempt == 10) {
                    throw e;
                }
            }
        }
    }

    private static void scenario(Args args) throws Exception {
        DefaultMQProducer producer = new DefaultMQProducer(args.get("group"));
        producer.setNamesrvAddr(args.get("namesrv"));
        producer.start();
        connect(producer, args.get("topic"));
        Report.event("ready");
        for (int n = 0; n < args.number("count", 1); n++) {
            String body = "request-" + n;
            Message m = new Message(args.get("topic"), body.getBytes(StandardCharsets.UTF_8));
            try {
                Message reply = producer.request(m, 20_000);
                Report.event("reply", "n", n, "body", new String(reply.getBody(), StandardCharsets.UTF_8));
            } catch (Exception e) {
                Report.event("failed", "n", n, "error", e);
            }
        }
        Report.event("done");
        producer.shutdown();
    }
}
