package interop;

import java.nio.charset.StandardCharsets;

import org.apache.rocketmq.client.producer.LocalTransactionState;
import org.apache.rocketmq.client.producer.TransactionListener;
import org.apache.rocketmq.client.producer.TransactionMQProducer;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;

/**
 * Sends {@code --count} messages in transactions: of four, the first is committed at once, the second rolled back, the
 * third committed and the fourth rolled back when the broker asks. Ends when standard input does.
 */
public final class Transact {
    private Transact() { }

    public static void main(String[] argv) {
        Report.main(() -> scenario(new Args(argv)));
    }

    private static String body(Message m) {
        return new String(m.getBody(), StandardCharsets.UTF_8);
    }

    private static int number(Message m) {
        return Integer.parseInt(body(m).substring(body(m).lastIndexOf('-') + 1));
    }

    private static LocalTransactionState verdict(int n) {
        return n % 2 == 0 ? LocalTransactionState.COMMIT_MESSAGE : LocalTransactionState.ROLLBACK_MESSAGE;
    }

    private static final class Listener implements TransactionListener {
        @Override
        public LocalTransactionState executeLocalTransaction(Message m, Object argument) {
            int n = number(m);
            return n % 4 < 2 ? verdict(n) : LocalTransactionState.UNKNOW;
        }

        @Override
        public LocalTransactionState checkLocalTransaction(MessageExt m) {
            Report.event("checked", "body", body(m), "topic", m.getTopic(), "transaction", m.getTransactionId());
            return verdict(number(m));
        }
    }

    private static void scenario(Args args) throws Exception {
        TransactionMQProducer producer = new TransactionMQProducer(args.get("group"));
        producer.setNamesrvAddr(args.get("namesrv"));
        producer.setSendMsgTimeout(10_000);
        producer.setTransactionListener(new Listener());
        producer.start();
        Report.event("ready");
        for (int n = 0; n < args.number("count", 1); n++) {
            String body = String.format("%s-%05d", args.get("prefix", "m"), n);
            Message m = new Message(args.get("topic"), body.getBytes(StandardCharsets.UTF_8));
            m.setKeys("key-" + body);
            m.putUserProperty("color", "blågrønn 青");
            Report.sent(n, body, producer.sendMessageInTransaction(m, null));
        }
        Report.event("done");
        Report.waitForEndOfInput();
        producer.shutdown();
        Report.event("stopped");
    }
}
