package interop;

import org.apache.rocketmq.client.ClientConfig;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.producer.DefaultMQProducer;

/**
 * Clients as the scenario wants them. Their traces go to the topic of {@code --trace} ("default": the system's); without
 * it they have none. {@code --namespace} is in front of their topics and groups; {@code --namespace-v2}, of 5.x, goes along
 * with their requests; {@code --unit} puts them into a unit.
 */
final class Clients {
    private Clients() { }

    private static String trace(Args args) {
        return args.get("trace").equals("default") ? null : args.get("trace");
    }

    static DefaultMQProducer producer(Args args) throws Exception {
        return configured(args, args.get("trace", "").isEmpty() ? new DefaultMQProducer(args.get("group"))
            : new DefaultMQProducer(args.get("group"), true, trace(args)));
    }

    static DefaultMQPushConsumer consumer(Args args) throws Exception {
        return configured(args, args.get("trace", "").isEmpty() ? new DefaultMQPushConsumer(args.get("group"))
            : new DefaultMQPushConsumer(args.get("group"), true, trace(args)));
    }

    private static <C extends ClientConfig> C configured(Args args, C client) throws Exception {
        client.setNamesrvAddr(args.get("namesrv"));
        if (!args.get("namespace", "").isEmpty()) {
            client.setNamespace(args.get("namespace"));
        }
        if (!args.get("namespace-v2", "").isEmpty()) { // 4.x does not have it, so it is called by its name
            ClientConfig.class.getMethod("setNamespaceV2", String.class).invoke(client, args.get("namespace-v2"));
        }
        if (!args.get("unit", "").isEmpty()) {
            client.setUnitName(args.get("unit"));
            client.setUnitMode(true);
        }
        return client;
    }
}
