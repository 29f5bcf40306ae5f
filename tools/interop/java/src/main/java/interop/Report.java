package interop;

import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.List;

import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.message.MessageClientIDSetter;
import org.apache.rocketmq.common.message.MessageExt;

/** Prints JSON lines on the process's real standard output; what clients print themselves goes to standard error. */
final class Report {
    private static final PrintStream OUT =
        new PrintStream(new FileOutputStream(FileDescriptor.out), true, StandardCharsets.UTF_8);

    static {
        System.setOut(System.err);
    }

    private Report() { }

    /** One event: alternating names and values; numbers stay numbers, all else becomes a string. */
    static void event(String event, Object... fields) {
        StringBuilder line = new StringBuilder("{\"event\":").append(quote(event));
        for (int i = 0; i < fields.length; i += 2) {
            line.append(',').append(quote((String) fields[i])).append(':');
            Object value = fields[i + 1];
            line.append(value instanceof Number || value == null ? String.valueOf(value) : quote(value.toString()));
        }
        synchronized (OUT) {
            OUT.println(line.append('}'));
        }
    }

    static void sent(int n, String body, SendResult result) {
        event("sent", "n", n, "body", body, "id", result.getMsgId(), "offsetId", result.getOffsetMsgId(),
            "status", result.getSendStatus().name(), "broker", result.getMessageQueue().getBrokerName(),
            "queue", result.getMessageQueue().getQueueId(), "offset", result.getQueueOffset());
    }

    static void messages(String event, List<MessageExt> messages) {
        for (MessageExt m : messages) {
            event(event, "topic", m.getTopic(), "body", new String(m.getBody(), StandardCharsets.UTF_8),
                "tag", m.getTags(), "keys", m.getKeys(), "color", m.getUserProperty("color"),
                "id", MessageClientIDSetter.getUniqID(m), "broker", m.getBrokerName(), "queue", m.getQueueId(),
                "offset", m.getQueueOffset(), "born", m.getBornTimestamp(), "due", m.getProperty("TIMER_DELIVER_MS"),
                "now", System.currentTimeMillis());
        }
    }

    /** Returns when the runner closes our standard input: its way to say "stop". */
    static void waitForEndOfInput() throws IOException {
        while (System.in.read() >= 0) {
            continue;
        }
    }

    /** Runs the action once the runner has closed our standard input. */
    static void onEndOfInput(Runnable action) {
        Thread reader = new Thread(() -> {
            try {
                waitForEndOfInput();
            } catch (IOException e) {
                event("input", "error", e);
            }
            action.run();
        });
        reader.setDaemon(true);
        reader.start();
    }

    /** The body of a program. */
    interface Scenario {
        void run() throws Exception;
    }

    /** Runs a program to its end, which is also the end of the clients' threads. */
    static void main(Scenario scenario) {
        try {
            scenario.run();
            System.exit(0);
        } catch (Exception e) {
            e.printStackTrace();
            System.exit(1);
        }
    }

    private static String quote(String text) {
        StringBuilder quoted = new StringBuilder("\"");
        for (char c : text.toCharArray()) {
            if (c == '"' || c == '\\') {
                quoted.append('\\').append(c);
            } else if (c < ' ') {
                quoted.append(String.format("\\u%04x", (int) c));
            } else {
                quoted.append(c);
            }
        }
        return quoted.append('"').toString();
    }
}
