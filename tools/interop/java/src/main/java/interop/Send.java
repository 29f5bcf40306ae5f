package interop;

import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicBoolean;

import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.MessageQueueSelector;
import org.apache.rocketmq.client.producer.SendCallback;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageAccessor;

/** Sends {@code --count} messages (0: until standard input ends) as {@code --mode} sync, async, oneway or batch. */
public final class Send {
    private final Args args;
    private final int count;
    private final String mode;
    private final int keys;
    private final String[] tags;
    private final DefaultMQProducer producer;

    private Send(Args args) throws Exception {
        this.args = args;
        count = args.number("count", 1);
        mode = args.get("mode", "sync");
        keys = args.number("sharding", 0);
        tags = args.get("tags", "").split(",");
        producer = Clients.producer(args);
        producer.setPollNameServerInterval(args.number("route-ms", 30_000));
        producer.setSendMsgTimeout(10_000); // several virtual machines start at once on few cores
    }

    public static void main(String[] argv) {
        Report.main(() -> scenario(new Send(new Args(argv))));
    }

    private static void scenario(Send send) throws Exception {
        send.producer.start();
        Report.event("ready");
        send.run();
        Report.event("done");
        if (!send.args.get("trace", "").isEmpty()) { // those that are not sent yet may be lost in the shutdown
            Report.waitForEndOfInput();
        }
        send.producer.shutdown();
    }

    private void run() throws Exception {
        if (mode.equals("batch")) {
            batch();
        } else if (mode.equals("async")) {
            async();
        } else {
            oneByOne();
        }
    }

    private Message message(int n) {
        StringBuilder body = new StringBuilder(String.format("%s-%05d", args.get("prefix", "m"), n));
        for (int size = args.number("size", 0); body.length() < size; ) {
            body.append((char) ('a' + (body.length() * 7 + n) % 26));
        }
        Message m = new Message(args.get("topic"), body.toString().getBytes(StandardCharsets.UTF_8));
        if (!tags[n % tags.length].isEmpty()) {
            m.setTags(tags[n % tags.length]);
        }
        m.setKeys("key-" + body.substring(0, Math.min(body.length(), 60)));
        m.putUserProperty("color", "blågrønn 青");
        if (args.number("delay-level", 0) > 0) {
            m.setDelayTimeLevel(args.number("delay-level", 0));
        }
        m.putUserProperty("n", Integer.toString(n));
        Timers.set(m, args);
        if (args.number("priorities", 0) > 0) { // Message.setPriority of 5.4
            MessageAccessor.putProperty(m, "_SYS_MSG_PRIORITY_", Integer.toString(n % args.number("priorities", 0)));
        }
        if (args.number("dedupe", 0) > 0) {
            m.putUserProperty("DEDUPE_KEY", "once-" + n % args.number("dedupe", 0));
        }
        if (!args.get("dispatch", "").isEmpty()) {
            MessageAccessor.putProperty(m, "INNER_MULTI_DISPATCH", args.get("dispatch", ""));
        }
        return m;
    }

    private static String body(Message m) {
        return new String(m.getBody(), StandardCharsets.UTF_8);
    }

    private void oneByOne() throws Exception {
        AtomicBoolean stopped = new AtomicBoolean();
        if (count == 0) {
            Report.onEndOfInput(() -> stopped.set(true));
        }
        for (int n = 0; count == 0 ? !stopped.get() : n < count; n++) {
            Message m = message(n);
            try {
                one(n, m);
            } catch (Exception e) {
                Report.event("failed", "n", n, "body", body(m), "error", e, "cause", e.getCause());
            }
            Thread.sleep(args.number("interval", 0));
        }
    }

    private void one(int n, Message m) throws Exception {
        if (mode.equals("oneway")) {
            producer.sendOneway(m);
            Report.event("sent", "n", n, "body", body(m));
        } else if (keys > 0) {
            MessageQueueSelector byKey = (queues, message, key) -> queues.get((Integer) key % queues.size());
            Report.sent(n, body(m), producer.send(m, byKey, n % keys));
        } else {
            Report.sent(n, body(m), producer.send(m));
        }
    }

    private void async() throws Exception {
        CountDownLatch open = new CountDownLatch(count);
        for (int i = 0; i < count; i++) {
            int n = i;
            Message m = message(n);
            producer.send(m, new SendCallback() {
                @Override
                public void onSuccess(SendResult result) {
                    Report.sent(n, body(m), result);
                    open.countDown();
                }

                @Override
                public void onException(Throwable e) {
                    Report.event("failed", "n", n, "body", body(m), "error", e);
                    open.countDown();
                }
            });
        }
        open.await();
    }

    private void batch() throws Exception {
        List<Message> messages = new ArrayList<>();
        for (int n = 0; n < count; n++) {
            messages.add(message(n));
        }
        SendResult result = producer.send(messages);
        String[] ids = result.getMsgId().split(",");
        for (int n = 0; n < count; n++) {
            Report.event("sent", "n", n, "body", body(messages.get(n)), "id", ids.length == count ? ids[n] : null,
                "broker", result.getMessageQueue().getBrokerName(), "queue", result.getMessageQueue().getQueueId(),
                "offset", result.getQueueOffset() + n);
        }
    }
}
