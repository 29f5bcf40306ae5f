import java.time.Duration;
import java.util.List;
import java.util.concurrent.*;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.*;
import org.apache.rocketmq.client.producer.*;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.*;

/**
 * What ringmq-client-bench does, with the Java client; prints: messages, seconds, CPU seconds.
 * usage: java -cp "LIBDIR/*" ClientLoad.java send|consume NAMESERVER TOPIC MESSAGES SIZE IN_FLIGHT
 */
public class ClientLoad {
    public static void main(String[] args) throws Exception {
        long messages = Long.parseLong(args[3]);
        int inFlight = Integer.parseInt(args[5]);
        if (args[0].equals("send")) send(args[1], args[2], messages, new byte[Integer.parseInt(args[4])], inFlight);
        else consume(args[1], args[2], messages);
        System.exit(0);
    }

    static Duration cpu() {
        return ProcessHandle.current().info().totalCpuDuration().get();
    }

    static void report(long messages, long began, Duration cpu) {
        double used = cpu().minus(cpu).toNanos() / 1e9;
        System.out.println(messages + " " + (System.nanoTime() - began) / 1e9 + " " + used);
    }

    /** A quarter of the messages warm the JVM up, uncounted. */
    static void send(String namesrv, String topic, long messages, byte[] body, int inFlight) throws Exception {
        DefaultMQProducer producer = new DefaultMQProducer("client_bench");
        producer.setNamesrvAddr(namesrv);
        producer.setSendMsgTimeout(30000);
        producer.start();
        many(producer, topic, messages / 4, body, inFlight);
        long began = System.nanoTime();
        Duration cpu = cpu();
        many(producer, topic, messages, body, inFlight);
        report(messages, began, cpu);
    }

    static void many(DefaultMQProducer producer, String topic, long count, byte[] body, int inFlight) throws Exception {
        Semaphore room = new Semaphore(inFlight);
        for (long i = 0; i < count; i++) {
            room.acquire();
            producer.send(new Message(topic, body), new SendCallback() {
                public void onSuccess(SendResult result) { room.release(); }
                public void onException(Throwable error) { error.printStackTrace(); System.exit(1); }
            });
        }
        room.acquire(inFlight);
    }

    static void consume(String namesrv, String topic, long messages) throws Exception {
        DefaultMQPushConsumer consumer = new DefaultMQPushConsumer("client_bench_" + System.nanoTime());
        consumer.setNamesrvAddr(namesrv);
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        consumer.subscribe(topic, "*");
        AtomicLong seen = new AtomicLong();
        CountDownLatch done = new CountDownLatch(1);
        long[] began = {0};
        Duration[] cpu = {null};
        consumer.registerMessageListener((List<MessageExt> batch, ConsumeConcurrentlyContext context) -> {
            long now = seen.addAndGet(batch.size());
            if (now == messages / 5) { began[0] = System.nanoTime(); cpu[0] = cpu(); }
            if (now == messages) done.countDown();
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        consumer.start();
        done.await();
        report(messages - messages / 5, began[0], cpu[0]);
    }
}
