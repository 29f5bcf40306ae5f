package interop;

import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageAccessor;

/** Messages for a moment: {@code --delay-ms}, told to the broker in the way of {@code --timer}. */
final class Timers {
    private Timers() { }

    /** The properties that {@code Message.setDeliverTimeMs} and its siblings of 5.x set; 4.x has no calls for them. */
    static void set(Message m, Args args) {
        long delay = args.number("delay-ms", 0);
        if (delay == 0) {
            return;
        }
        switch (args.get("timer", "at")) {
            case "at":
                MessageAccessor.putProperty(m, "TIMER_DELIVER_MS", Long.toString(System.currentTimeMillis() + delay));
                break;
            case "ms":
                MessageAccessor.putProperty(m, "TIMER_DELAY_MS", Long.toString(delay));
                break;
            default:
                MessageAccessor.putProperty(m, "TIMER_DELAY_SEC", Long.toString(delay / 1000));
        }
    }
}
