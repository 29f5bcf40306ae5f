import java.util.Map;
import org.apache.rocketmq.common.message.MessageQueue;
import org.apache.rocketmq.tools.admin.DefaultMQAdminExt;

/**
 * Prints the offsets that a member of a group has, as the member tells them (222 to the broker, 221 to the member):
 * CLIENT BROKER/QUEUE OFFSET. mqadmin 5.5.0 has no command for it.
 * usage: java -cp "LIBDIR/*" ConsumeStatus.java NAMESERVER TOPIC GROUP CLIENT
 */
public class ConsumeStatus {
    public static void main(String[] args) throws Exception {
        DefaultMQAdminExt admin = new DefaultMQAdminExt();
        admin.setNamesrvAddr(args[0]);
        admin.start();
        for (Map.Entry<String, Map<MessageQueue, Long>> member : admin.getConsumeStatus(args[1], args[2], args[3]).entrySet())
            for (Map.Entry<MessageQueue, Long> queue : member.getValue().entrySet())
                System.out.println(member.getKey() + " " + queue.getKey().getBrokerName() + "/" + queue.getKey().getQueueId() + " " + queue.getValue());
        admin.shutdown();
        System.exit(0);
    }
}
