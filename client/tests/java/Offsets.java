import java.util.*;
import org.apache.rocketmq.client.ClientConfig;
import org.apache.rocketmq.client.consumer.store.*;
import org.apache.rocketmq.client.impl.MQClientManager;
import org.apache.rocketmq.client.impl.factory.MQClientInstance;
import org.apache.rocketmq.common.message.MessageQueue;

/**
 * Java's own file of a broadcasting consumer's offsets, for tests/offset_file.rs.
 * usage: java -Drocketmq.client.localOffsetStoreDir=DIR -cp "LIBDIR/*" Offsets.java INSTANCE GROUP TOPIC BROKER QUEUE [OFFSET]
 * It stores the offset, or prints the one that is stored. The file is DIR/127.0.0.1@INSTANCE/GROUP/offsets.json.
 */
public class Offsets {
    public static void main(String[] args) throws Exception {
        ClientConfig config = new ClientConfig();
        config.setClientIP("127.0.0.1");
        config.setInstanceName(args[0]);
        MQClientInstance client = MQClientManager.getInstance().getOrCreateMQClientInstance(config);
        LocalFileOffsetStore store = new LocalFileOffsetStore(client, args[1]);
        store.load();
        MessageQueue queue = new MessageQueue(args[2], args[3], Integer.parseInt(args[4]));
        if (args.length > 5) {
            store.updateOffset(queue, Long.parseLong(args[5]), false);
            store.persistAll(Collections.singleton(queue));
        } else {
            System.out.println(store.readOffset(queue, ReadOffsetType.READ_FROM_STORE));
        }
        System.exit(0);
    }
}
