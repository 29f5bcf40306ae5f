package interop;

import java.util.Collections;
import java.util.List;

import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.message.MessageExt;

/** Looks messages up: those with {@code --key}, the one with {@code --id}, and the one with {@code --offset-id}. */
public final class Query {
    private Query() { }

    public static void main(String[] argv) {
        Report.main(() -> scenario(new Args(argv)));
    }

    private static void scenario(Args args) throws Exception {
        DefaultMQProducer admin = new DefaultMQProducer(args.get("group"));
        admin.setNamesrvAddr(args.get("namesrv"));
        admin.start();
        Report.messages("by-key", byKey(admin, args.get("topic"), args.get("key")));
        for (String kind : new String[] {"id", "offset-id"}) {
            Report.messages("by-" + kind,
                Collections.singletonList(admin.viewMessage(args.get("topic"), args.get(kind))));
        }
        absent(admin, args.get("topic"));
        Report.event("stopped");
        admin.shutdown();
    }

    /** The key index may lag behind the send for a moment, so an empty answer is asked for again for 5 s. */
    private static List<MessageExt> byKey(DefaultMQProducer admin, String topic, String key) throws Exception {
        for (int attempt = 0; ; attempt++) {
            try {
                return admin.queryMessage(topic, key, 32, 0, System.currentTimeMillis() + 60_000).getMessageList();
            } catch (MQClientException e) {
                if (attempt == 50) {
                    throw e;
                }
                Thread.sleep(100);
            }
        }
    }

    private static void absent(DefaultMQProducer admin, String topic) throws InterruptedException {
        try {
            admin.queryMessage(topic, "no-such-key", 32, 0, System.currentTimeMillis());
            Report.event("found-absent-key");
        } catch (MQClientException e) {
            Report.event("absent-key-refused", "error", e);
        }
    }
}
