package interop;

import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.producer.DefaultMQProducer;

/** Clients whose traces go to the topic of {@code --trace} ("default": the system's); without it they have none. */
final class Trace {
    private Trace() { }

    private static String topic(Args args) {
        return args.get("trace").equals("default") ? null : args.get("trace");
    }

    static DefaultMQProducer producer(Args args) {
        return args.get("trace", "").isEmpty() ? new DefaultMQProducer(args.get("group"))
            : new DefaultMQProducer(args.get("group"), true, topic(args));
    }

    static DefaultMQPushConsumer consumer(Args args) {
        return args.get("trace", "").isEmpty() ? new DefaultMQPushConsumer(args.get("group"))
            : new DefaultMQPushConsumer(args.get("group"), true, topic(args));
    }
}
