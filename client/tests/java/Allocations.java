import java.util.*;
import java.util.stream.*;
import org.apache.rocketmq.client.consumer.AllocateMessageQueueStrategy;
import org.apache.rocketmq.client.consumer.rebalance.*;
import org.apache.rocketmq.common.message.MessageQueue;

/**
 * Prints what Java's own strategies answer to generated cases, for tests/allocate.rs to compare.
 * usage: java -cp "LIBDIR/*" Allocations.java SEED CASES
 * A line: strategy, parameter, client, clients, topic, queues (broker/id), result; tabs between, commas within.
 */
public class Allocations {
    static final String[] ROOMS = {"hz", "sh", "bj"};
    static Random random;

    static String join(Collection<?> items) {
        return items.stream().map(Object::toString).collect(Collectors.joining(","));
    }

    static List<String> names(List<MessageQueue> queues) {
        return queues.stream().map(q -> q.getBrokerName() + "/" + q.getQueueId()).collect(Collectors.toList());
    }

    static List<MessageQueue> queues(String topic) {
        SortedSet<MessageQueue> queues = new TreeSet<>();
        int brokers = 1 + random.nextInt(4);
        for (int b = 0; b < brokers; b++) {
            String room = ROOMS[random.nextInt(ROOMS.length)];
            String name = room + "@broker-" + b + (random.nextInt(12) == 0 ? "@" : "") + (random.nextInt(12) == 0 ? "@x" : "");
            int count = random.nextInt(10) == 0 ? 16 + random.nextInt(17) : 1 + random.nextInt(8);
            for (int q = 0; q < count; q++) queues.add(new MessageQueue(topic, name, q));
        }
        return new ArrayList<>(queues);
    }

    static List<String> clients() {
        SortedSet<String> clients = new TreeSet<>();
        int count = 1 + random.nextInt(random.nextInt(8) == 0 ? 40 : 6);
        for (int c = 0; c < count; c++)
            clients.add(ROOMS[random.nextInt(ROOMS.length)] + "@10.0." + random.nextInt(3) + "." + random.nextInt(200) + "@" + random.nextInt(99999) + "#" + random.nextInt());
        return new ArrayList<>(clients);
    }

    static final AllocateMachineRoomNearby.MachineRoomResolver RESOLVER = new AllocateMachineRoomNearby.MachineRoomResolver() {
        public String brokerDeployIn(MessageQueue queue) { return queue.getBrokerName().split("@")[0]; }
        public String consumerDeployIn(String client) { return client.split("@")[0]; }
    };

    public static void main(String[] args) {
        random = new Random(Long.parseLong(args[0]));
        int cases = Integer.parseInt(args[1]);
        StringBuilder out = new StringBuilder();
        for (int i = 0; i < cases; i++) {
            String topic = "Topic" + random.nextInt(50);
            List<MessageQueue> queues = queues(topic);
            List<String> clients = clients();
            String client = random.nextInt(20) == 0 ? "hz@stranger" : clients.get(random.nextInt(clients.size()));
            String parameter = "";
            AllocateMessageQueueStrategy strategy;
            switch (i % 7) {
                case 0: strategy = new AllocateMessageQueueAveragely(); break;
                case 1: strategy = new AllocateMessageQueueAveragelyByCircle(); break;
                case 2:
                    AllocateMessageQueueByConfig config = new AllocateMessageQueueByConfig();
                    config.setMessageQueueList(queues.subList(0, random.nextInt(queues.size() + 1)));
                    parameter = join(names(config.getMessageQueueList()));
                    strategy = config;
                    break;
                case 3:
                    AllocateMessageQueueByMachineRoom room = new AllocateMessageQueueByMachineRoom();
                    room.setConsumeridcs(new TreeSet<>(Arrays.asList(ROOMS).subList(0, random.nextInt(4))));
                    parameter = join(room.getConsumeridcs());
                    strategy = room;
                    break;
                case 4: strategy = new AllocateMachineRoomNearby(new AllocateMessageQueueAveragely(), RESOLVER); break;
                case 5: strategy = new AllocateMachineRoomNearby(new AllocateMessageQueueAveragelyByCircle(), RESOLVER); break;
                default:
                    int nodes = random.nextBoolean() ? 10 : random.nextInt(30);
                    parameter = Integer.toString(nodes);
                    strategy = new AllocateMessageQueueConsistentHash(nodes);
            }
            List<MessageQueue> result = strategy.allocate("group", client, queues, clients);
            out.append(String.join("\t", strategy.getName(), parameter, client, join(clients), topic, join(names(queues)), join(names(result)))).append('\n');
        }
        System.out.print(out);
    }
}
