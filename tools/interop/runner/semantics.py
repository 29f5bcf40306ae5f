"""What makes RocketMQ more than a log: delays, retries, dead letters, transactions, requests, traces, priorities."""
import time
from collections import Counter

from . import remoting
from .admin import CLUSTER, Shell
from .cases import case
from .clients import CLIENTS
from .context import check, check_content, check_once, got

JAVA_TIMER_MS = 1200  # a Java broker may fire a timer up to its precision (1 s) early


def check_times(t, sent, consumer, due, early=0):
    """Each message comes once, and not before it is `due`, a function of the message, in ms by the machine's clock."""
    t.until_consumed(sent, consumer)
    t.quiet()
    check_once([dict(m, offset=None, queue=None) for m in sent], consumer)
    for m in got(consumer):
        check(m["now"] >= due(m) - early, "%s came %d ms before its time" % (m["body"], due(m) - m["now"]))


def early(t):
    return 0 if t.suite.peer == "ringmq" else JAVA_TIMER_MS


@case("delay", "sync", waits=True)
def delay(t):
    """By level: each message comes once, and not before its time."""
    t.create_topic()
    consumer = t.consumer()
    sent = t.send(count=20, **{"delay-level": 2})
    check_times(t, sent, consumer, lambda m: m["born"] + 5000)


@case("timer", "sync", waits=True)
def timer(t):
    """To a moment."""
    t.create_topic()
    consumer = t.consumer()
    sent = t.send(count=20, **{"delay-ms": 5000})
    check_times(t, sent, consumer, lambda m: int(m["due"]), early(t))


@case("timer-relative", "recall", waits=True)
def timer_relative(t):
    """In milliseconds and in seconds from now."""
    t.create_topic()
    consumer = t.consumer()
    sent = [m for kind in ("ms", "sec")
            for m in t.send(count=10, prefix=kind, timer=kind, **{"delay-ms": 3000})]
    check_times(t, sent, consumer, lambda m: m["born"] + 3000, early(t))


@case("recall", "recall", waits=True)
def recall(t):
    """Of what is sent for later, what is recalled does not come."""
    t.create_topic()
    consumer = t.consumer()
    producer = t.start("recall", group=t.group + "-P", count=10, **{"delay-ms": 6000}).wait_for("done")
    recalled = producer.all("recalled")
    check([m["n"] for m in recalled] == [1, 3, 5, 7, 9], "recalled: %s" % recalled)
    check({m["same"] for m in recalled} == {"true"}, "ids of what was recalled: %s" % recalled)
    check(not producer.all("recalled-nothing") and producer.all("refused"), "a handle that is none was taken")
    kept = [dict(m, offset=None, queue=None) for m in producer.all("sent") if m["n"] % 2 == 0]
    t.until_consumed(kept, consumer)
    t.quiet(2.5)
    check_once(kept, consumer)


@case("retry", "retry", waits=True)
def retry(t):
    """What a consumer sends back comes again after its delay, under its own topic, and then is done with."""
    times = 2 if "retry-level" in t.client.can else 1
    t.create_topic()
    t.create_retry_topic()
    consumer = t.consumer(failures=times, **{"retry-level": 1})
    sent = t.send(count=20)
    t.until(lambda: len(got(consumer)) >= 20 * (times + 1), "each message to come %d times" % (times + 1))
    t.quiet(3)
    counts = Counter(m["body"] for m in got(consumer))
    check(set(counts) == {m["body"] for m in sent} and set(counts.values()) == {times + 1}, "deliveries: %s" % counts)
    topics = {m["topic"] for m in got(consumer)}
    check(topics == {t.topic} or t.client.name == "cpp", "topics that the consumer sees: %s" % topics)


@case("dead-letters", "dead-letters", waits=True)
def dead_letters(t):
    """What fails too often stands in the group's dead letter topic, once."""
    t.create_topic()
    t.create_retry_topic()
    consumer = t.consumer(failures=9, **{"retry-level": 1, "max-reconsume": 1})
    t.send(count=10)
    t.until(lambda: len(got(consumer)) >= 20, "each message to come twice")
    t.until(lambda: t.depth("%DLQ%" + t.group) == 10, "ten dead letters")
    t.quiet(2)
    check(len(got(consumer)) == 20 and t.depth("%DLQ%" + t.group) == 10, "more came than was due")


@case("orderly-retry", "orderly-retry")
def orderly_retry(t):
    """A queue waits for the message that fails: what is behind it comes after its last attempt."""
    t.create_topic(queues=1, brokers=t.cluster.names[:1])
    consumer = t.consumer(order="orderly", failures=2)
    sent = t.send(count=10)
    t.until(lambda: len(got(consumer)) >= 30, "each message to come three times")
    t.quiet()
    expected = [m["body"] for m in sent for _ in range(3)]
    came = [m["body"] for m in got(consumer)]
    check(came == expected, "what came: %s" % came)


@case("transactions", "transactions", waits=True)
def transactions(t):
    """Of four messages two are ended at once and two when the broker asks; what is committed is seen once."""
    t.create_topic()
    producer = t.start("transact", group=t.group + "-P", count=8).wait_for("done")
    sent = producer.all("sent")
    check(len(sent) == 8, "%d of 8 sent" % len(sent))
    committed = [m for m in sent if m["n"] % 2 == 0]
    consumer = t.consumer(**{"from": "first"})
    t.until_consumed([m for m in committed if m["n"] % 4 == 0], consumer)
    t.until_consumed(committed, consumer, seconds=90)
    asked = {m["body"] for m in producer.all("checked")}
    unknown = {m["body"] for m in sent if m["n"] % 4 >= 2}
    t.until(lambda: {m["body"] for m in producer.all("checked")} >= unknown, "the checks")
    check(asked <= unknown, "asked for %s" % sorted(asked - unknown))
    t.quiet()
    # Where a message lies is known when it is committed, not when it is sent.
    check_once([dict(m, offset=None) for m in committed], consumer)


@case("request-reply", "request-reply", waits=True)
def request_reply(t):
    """Each requester gets the replies to its own requests."""
    t.create_topic()
    responder = t.start("respond").wait_for("ready")
    requesters = [t.start("request", group=t.group + "-P", count=10).wait_for("ready") for _ in range(2)]
    for requester in requesters:
        requester.wait_for("done")
        check(not requester.all("failed"), "requests failed: %s" % requester.all("failed")[:1])
        replies = [(m["n"], m["body"]) for m in requester.all("reply")]
        check(replies == [(n, "re: request-%d" % n) for n in range(10)], "replies: %s" % replies)
    check(not responder.all("failed"), "replies failed: %s" % responder.all("failed")[:1])


@case("requests", "requests", waits=True)
def requests(t):
    """A requester of another language gets the replies of a Java client."""
    t.create_topic()
    t.start("respond", client=CLIENTS["java-5.5.0"]).wait_for("ready")
    requester = t.start("request", group=t.group + "-P", count=10).wait_for("done")
    check(not requester.all("failed"), "requests failed: %s" % requester.all("failed")[:1])
    replies = [(m["n"], m["body"]) for m in requester.all("reply")]
    check(replies == [(n, "re: request-%d" % n) for n in range(10)], "replies: %s" % replies)


def traced(t, trace, *arguments):
    """Sends and consumes with traces, and finds a message's trace by its id as mqadmin does."""
    t.create_topic()
    consumer = t.consumer(trace=trace)
    sent = t.producer(count=20, trace=trace).wait_for("done").all("sent")
    t.until_consumed(sent, consumer)
    shell, wanted = Shell(t), sent[7]["id"]
    found = {}

    def complete():
        found["text"] = shell.run("queryMsgTraceById", "-i", wanted, *arguments)
        return "Pub" in found["text"] and "Sub" in found["text"]

    t.until(complete, lambda: "the trace of %s: %s" % (wanted, found["text"][:1000]))
    check(t.group + "-P" in found["text"] and "success" in found["text"], "trace: %s" % found["text"][:1000])


@case("trace", "system-trace", waits=True)
def trace(t):
    """In the system's trace topic."""
    traced(t, "default")


@case("trace-topic", "trace", waits=True)
def trace_topic(t):
    """In a topic of the client's own."""
    own = t.topic + "-trace"
    for address in t.cluster.addresses().values():
        remoting.create_topic(address, own, 1)
    traced(t, own, "-t", own)


@case("priority", "priority")
def priority(t):
    """A message of priority p goes to queue p of a topic, and one that is beyond to the last."""
    t.create_topic(queues=3, brokers=t.cluster.names[:1])
    sent = t.send(count=25, priorities=5)
    consumer = t.consumer()
    t.until_consumed(sent, consumer)
    check_once(sent, consumer)
    number = {m["body"]: m["n"] for m in sent}
    queues = sorted((number[m["body"]], m["queue"]) for m in got(consumer))
    check(queues == [(n, min(n % 5, 2)) for n in range(25)], "queues: %s" % queues)


@case("reset-by-time", "retry-level", waits=True)
def reset_by_time(t):
    """mqadmin sets a live group back to a moment between two sends."""
    t.create_topic(brokers=t.cluster.names[:1])
    consumer = t.consumer()
    before = t.send(count=8, prefix="before")
    t.quiet(0.5)
    moment = str(int(time.time() * 1000))
    t.quiet(0.5)
    after = t.send(count=8, prefix="after")
    t.until_consumed(before + after, consumer)
    t.quiet(6)  # commits
    Shell(t).expect(r"^%s +\d+ +\d+" % t.cluster.names[0], "resetOffsetByTime", "-g", t.group, "-t", t.topic,
                    "-s", moment)
    t.until(lambda: len(got(consumer)) >= 24, "the later messages once more")
    t.quiet(2)
    counts = Counter(m["body"] for m in got(consumer))
    check(counts == Counter([m["body"] for m in before + after + after]), "deliveries: %s" % counts)


@case("message-type", "recall")
def message_type(t):
    """A topic of a type, made and changed with attributes."""
    shell = Shell(t)

    def alter(attributes):
        return shell.run("updateTopic", "-c", CLUSTER, "-t", t.topic, "-r", "4", "-w", "4", "-a", attributes)

    check("success" in alter("+message.type=DELAY"), "the topic is not made")
    t.until(lambda: remoting.route(t.cluster.namesrv, t.topic), "the route")
    consumer = t.consumer()
    sent = t.send(count=4, **{"delay-level": 1})
    check_times(t, sent, consumer, lambda m: m["born"] + 1000)
    for wrong in ("+no.such.attribute=1", "+message.type=NONSENSE", "-message.type=DELAY"):
        check("success" not in alter(wrong), "%s was taken" % wrong)


@case("lmq", "lmq")
def lmq(t):
    """A message that is dispatched to light queues is readable from each, at its offset there."""
    t.create_topic(brokers=t.cluster.names[:1])
    both, one = ("%%LMQ%%%s-%s" % (t.topic, name) for name in "ab")
    first = t.send(count=10, prefix="both", dispatch="%s,%s" % (both, one))
    second = t.send(count=10, prefix="one", dispatch=one)
    for queue, expected in ((both, first), (one, first + second)):
        reader = t.start("pull-lmq", lmq=queue).wait_for("stopped")
        read = reader.all("message")
        check([m["body"] for m in read] == [m["body"] for m in expected], "%s has %s" % (queue, read))
        check([int(m["dispatched"].split(",")[-1]) for m in read] == list(range(len(read)))
              or queue == both, "offsets in %s: %s" % (queue, [m["dispatched"] for m in read]))
        check(reader.all("bounds") == [{"event": "bounds", "min": 0, "max": len(expected), "committed": 3}],
              "bounds of %s: %s" % (queue, reader.all("bounds")))
        check_content(first + second, read)


@case("inner-batch", "inner-batch")
def inner_batch(t):
    """In a topic of batch queues a batch is one record, whose messages have offsets of their own."""
    t.create_topic(attributes="+queue.type=BatchCQ")
    sent = [m for n in range(3) for m in t.send(mode="batch", count=40, prefix="batch-%d" % n)]
    single = t.send(count=8)
    # The Go client cannot take such a record apart.
    reader = {"client": CLIENTS["java-5.5.0"]} if t.client.name == "go" else {}
    consumer = t.consumer(**reader)
    t.until_consumed(sent + single, consumer)
    t.quiet(0.5)
    check_once(sent + single, consumer)
