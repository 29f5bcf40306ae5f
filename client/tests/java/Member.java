import java.nio.charset.StandardCharsets;
import java.util.*;
import java.util.concurrent.*;
import java.util.stream.*;
import org.apache.rocketmq.client.consumer.AllocateMessageQueueStrategy;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.*;
import org.apache.rocketmq.client.consumer.rebalance.*;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.*;

/**
 * Members of consumer groups in Java, for tests/interwork.rs, which tells it on its standard input what to do:
 *   join GROUP TOPIC STRATEGY INSTANCE     and    leave GROUP
 * It prints "m GROUP BODY" for each message, and "q GROUP BROKER/ID,..." when the queues of the topic changed.
 * It ends when its standard input does.
 * usage: java -cp "LIBDIR/*" Member.java NAMESERVER
 */
public class Member {
    static final Map<String, DefaultMQPushConsumer> members = new ConcurrentHashMap<>();
    static final Map<String, String> queues = new ConcurrentHashMap<>();

    /** Queues with even ids are in Java's room, and so are the members whose instance is named after it. */
    static final AllocateMachineRoomNearby.MachineRoomResolver ROOMS = new AllocateMachineRoomNearby.MachineRoomResolver() {
        public String brokerDeployIn(MessageQueue queue) { return queue.getQueueId() % 2 == 0 ? "java" : "rust"; }
        public String consumerDeployIn(String client) { return client.contains("java") ? "java" : "rust"; }
    };

    static AllocateMessageQueueStrategy strategy(String name, String topic, String[] byConfig) {
        switch (name) {
            case "AVG": case "BROKER": return new AllocateMessageQueueAveragely();
            case "AVG_BY_CIRCLE": return new AllocateMessageQueueAveragelyByCircle();
            case "CONSISTENT_HASH": return new AllocateMessageQueueConsistentHash();
            case "MACHINE_ROOM_NEARBY": return new AllocateMachineRoomNearby(new AllocateMessageQueueAveragely(), ROOMS);
            case "MACHINE_ROOM":
                AllocateMessageQueueByMachineRoom room = new AllocateMessageQueueByMachineRoom();
                room.setConsumeridcs(Collections.singleton("room"));
                return room;
            case "CONFIG":
                AllocateMessageQueueByConfig config = new AllocateMessageQueueByConfig();
                config.setMessageQueueList(Arrays.stream(byConfig).map(q -> queue(topic, q)).collect(Collectors.toList()));
                return config;
            default: throw new IllegalArgumentException(name);
        }
    }

    static MessageQueue queue(String topic, String text) {
        int slash = text.lastIndexOf('/');
        return new MessageQueue(topic, text.substring(0, slash), Integer.parseInt(text.substring(slash + 1)));
    }

    static void join(String nameServer, String group, String topic, String strategy, String instance, String[] byConfig) throws Exception {
        DefaultMQPushConsumer consumer = new DefaultMQPushConsumer(group);
        consumer.setNamesrvAddr(nameServer);
        consumer.setClientIP("127.0.0.1");
        consumer.setInstanceName(instance);
        consumer.setConsumeThreadMin(1);
        consumer.setConsumeThreadMax(1);
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        consumer.setAllocateMessageQueueStrategy(strategy(strategy, topic, byConfig));
        consumer.setClientRebalance(!strategy.equals("BROKER"));
        consumer.subscribe(topic, "*");
        consumer.registerMessageListener((List<MessageExt> messages, ConsumeConcurrentlyContext context) -> {
            for (MessageExt message : messages) print("m " + group + " " + new String(message.getBody(), StandardCharsets.UTF_8));
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        consumer.start();
        members.put(group, consumer);
    }

    static synchronized void print(String line) {
        System.out.println(line);
    }

    static void watch() {
        members.forEach((group, consumer) -> {
            Set<MessageQueue> held = consumer.getDefaultMQPushConsumerImpl().getRebalanceImpl().getProcessQueueTable().keySet();
            String now = held.stream().filter(q -> !q.getTopic().startsWith("%RETRY%"))
                .map(q -> q.getBrokerName() + "/" + q.getQueueId()).sorted().collect(Collectors.joining(","));
            if (!now.equals(queues.put(group, now))) print("q " + group + " " + now);
        });
    }

    public static void main(String[] args) throws Exception {
        ScheduledExecutorService watching = Executors.newSingleThreadScheduledExecutor();
        watching.scheduleAtFixedRate(Member::watch, 50, 50, TimeUnit.MILLISECONDS);
        Scanner commands = new Scanner(System.in, StandardCharsets.UTF_8);
        while (commands.hasNextLine()) {
            String[] words = commands.nextLine().split(" ");
            if (words[0].equals("join")) {
                join(args[0], words[1], words[2], words[3], words[4], words.length > 5 ? words[5].split(",") : new String[0]);
            } else {
                members.remove(words[1]).shutdown();
                queues.remove(words[1]);
                print("q " + words[1] + " ");
            }
        }
        System.exit(0);
    }
}
