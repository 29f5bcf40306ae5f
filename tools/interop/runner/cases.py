"""The cases that every client takes part in, as far as it has the ability."""
import time

from . import remoting
from .context import check, check_content, check_once, check_sent, got

CASES = []  # (name, ability it needs, function, whether it mostly waits)


def case(name, needs, waits=False):
    def register(function):
        CASES.append((name, needs, function, waits))
        return function
    return register


def send_and_consume(t, **arguments):
    """Sends, then reads all back with one new consumer; returns what was sent."""
    t.create_topic()
    sent = t.send(**arguments)
    check_sent(sent)
    consumer = t.consumer()
    t.until_consumed(sent, consumer)
    t.quiet(0.3)
    check_once(sent, consumer)
    return sent, got(consumer)


@case("send-sync", "sync")
def send_sync(t):
    sent, _ = send_and_consume(t, mode="sync", count=40)
    per_queue = {}
    for message in sent:
        if "queue" in message:
            per_queue.setdefault((message["broker"], message["queue"]), []).append(message["offset"])
    for queue, offsets in per_queue.items():
        check(offsets == sorted(offsets), "offsets of %s are not in the order of the sends: %s" % (queue, offsets))


@case("send-async", "async")
def send_async(t):
    send_and_consume(t, mode="async", count=200)


@case("send-oneway", "oneway")
def send_oneway(t):
    send_and_consume(t, mode="oneway", count=40)


@case("send-batch", "batch")
def send_batch(t):
    sent, received = send_and_consume(t, mode="batch", count=50)
    check(len({(m.get("broker"), m["queue"]) for m in received}) == 1, "the batch is spread over queues")
    bodies = [m["body"] for m in sorted(received, key=lambda m: m["offset"])]
    check(bodies == [m["body"] for m in sent], "the batch's order is not kept: %s" % bodies)


@case("big-body", "sync")
def big_body(t):
    """Beyond the clients' threshold for compression."""
    send_and_consume(t, mode="sync", count=6, size=100_000)


@case("auto-create", "auto-create")
def auto_create(t):
    """The first send makes the topic, with as many queues as the producer asks for (4)."""
    sent = t.send(count=24)
    names = {m["broker"] for m in sent if "broker" in m} or set(t.cluster.names)
    t.until(lambda: set(remoting.route(t.cluster.namesrv, t.topic)) >= names, "the new topic's route")
    route = remoting.route(t.cluster.namesrv, t.topic)
    check(set(route.values()) == {4}, "queues of the new topic: %s" % route)
    consumer = t.consumer()
    t.until_consumed(sent, consumer)
    check_once(sent, consumer)


@case("tags", "tags")
def tags(t):
    t.create_topic()
    sent = t.send(count=60, tags="TagA,TagB,TagC")
    wanted = [m for m in sent if m["n"] % 3 != 1]
    consumer = t.consumer(tags="TagA || TagC")
    t.until_consumed(wanted, consumer)
    t.quiet()
    check_once(wanted, consumer)
    check({m["tag"] for m in got(consumer)} == {"TagA", "TagC"}, "tags that came")


@case("tags-collide", "tags")
def tags_collide(t):
    """"Aa" and "BB" have the same Java hash code: the broker may pass both, the client must not."""
    t.create_topic()
    sent = t.send(count=40, tags="Aa,BB")
    wanted = [m for m in sent if m["n"] % 2 == 0]
    consumer = t.consumer(tags="Aa")
    t.until_consumed(wanted, consumer)
    t.quiet()
    check_once(wanted, consumer)


@case("sql", "sql")
def sql(t):
    """By properties, also of messages that come while the consumer waits."""
    t.create_topic()
    consumer = t.consumer(sql="n BETWEEN 10 AND 19 OR n IN ('33', '34') AND color IS NOT NULL OR KEYS ENDSWITH '-00040'")
    sent = t.send(count=60)
    wanted = [m for m in sent if 10 <= m["n"] < 20 or m["n"] in (33, 34, 40)]
    t.until_consumed(wanted, consumer)
    t.quiet()
    check_once(wanted, consumer)


@case("sql-lite-pull", "lite-pull")
def sql_lite_pull(t):
    """The expression comes with each pull."""
    t.create_topic()
    sent = t.send(count=60)
    wanted = [m for m in sent if m["n"] >= 50]
    consumer = t.start("pull", sql="n >= 50").wait_for("ready")
    t.until_consumed(wanted, consumer)
    t.quiet()
    check_once(wanted, consumer)


@case("rebalance", "clustering")
def rebalance(t):
    """Members join, leave and are killed under load: queues are shared anew each time, and nothing is lost."""
    t.create_topic()
    producer = t.producer(count=0, interval=20)
    window = 0.5 + 0.1 * len(t.queues())
    first = t.consumer()
    t.until_shared(window, first)
    second = t.consumer()
    t.until_shared(window, first, second)
    first.stop()
    t.until_shared(window, second)
    third = t.consumer()
    t.until_shared(window, second, third)
    second.kill()
    t.until_shared(window, third)
    sent = producer.stop("done").all("sent")
    check(not producer.all("failed"), "sends failed: %s" % producer.all("failed")[:1])
    check_sent(sent)
    t.until_consumed(sent, first, second, third)
    for member in (first, second, third):
        check(got(member), "%s got nothing" % member.name)
        check_content(sent, got(member))


@case("broadcast", "broadcasting")
def broadcast(t):
    t.create_topic()
    members = [t.consumer(model="broadcasting") for _ in range(2)]
    t.until_on_all_queues(*members)
    sent = t.send(count=40)
    for member in members:
        t.until_consumed(sent, member)
    t.quiet(0.3)
    for member in members:
        check_once(sent, member)


@case("orderly", "orderly")
def orderly(t):
    """Each key's messages come in their order, also when queues go to another member in the middle."""
    t.create_topic()
    members = [t.consumer(order="orderly") for _ in range(2 if "share-ordered" in t.client.can else 1)]
    warm(t, members)
    producer = t.producer(count=0, interval=10, sharding=8)
    t.until(lambda: len(producer.all("sent")) >= 80 and all(got(member) for member in members), "all to get some")
    if "leave-ordered" in t.client.can:
        members[-1].stop()
    if len(members) == 1:
        members.append(t.consumer(order="orderly"))
    before = len(producer.all("sent"))
    t.until(lambda: len(producer.all("sent")) >= before + 80, "80 more to be sent")
    sent = producer.stop("done").all("sent")
    check(not producer.all("failed"), "sends failed: %s" % producer.all("failed")[:1])
    t.until_consumed(sent, *members)
    check_order(sent, 8, *members)


def check_order(sent, keys, *members):
    """Each key's messages came in the order in which they were sent, apart from repeats."""
    number = {m["body"]: m["n"] for m in sent}
    arrivals = sorted((at, number[m["body"]]) for member in members for at, m in member.timed("message")
                      if m["body"] in number)
    for key in range(keys):
        first_seen = list(dict.fromkeys(n for _, n in arrivals if n % keys == key))
        check(first_seen == sorted(first_seen), "order of key %d: %s" % (key, first_seen))


def warm(t, members):
    """Sends warm-up messages until every queue has come to exactly one member and every member has one."""
    while not t.shared(2.5, members):
        check(time.monotonic() < t.deadline, "the members do not share the queues")
        t.warm_up()
        t.quiet(0.4)


@case("resume", "clustering")
def resume(t):
    """A group goes on where it stopped: no message twice, none lost."""
    t.create_topic()
    before = t.send(count=40, prefix="before")
    first = t.consumer()
    t.until_consumed(before, first)
    first.stop()
    check_once(before, first)
    after = t.send(count=40, prefix="after")
    second = t.consumer()
    t.until_consumed(after, second)
    t.quiet()
    check_once(after, second)


@case("from-first", "first")
def from_first(t):
    t.create_topic()
    old = t.send(count=20, prefix="old")
    consumer = t.consumer(**{"from": "first"})
    t.until_consumed(old, consumer)
    new = t.send(count=20, prefix="new")
    t.until_consumed(new, consumer)
    check_once(old + new, consumer)


@case("from-last", "clustering")
def from_last(t):
    """A new group on a young topic begins at its first message, whatever it asks for."""
    t.create_topic()
    old = t.send(count=20, prefix="old")
    consumer = t.consumer(**{"from": "last"})
    t.until_consumed(old, consumer)
    check_once(old, consumer)


@case("from-last-empty", "clustering")
def from_last_empty(t):
    """A new group that comes before the first message misses none. (The Java broker loses some here, so there the
    case says no more than that new messages come.)"""
    t.create_topic()
    t.primed.add(t.topic)
    consumer = t.consumer(**{"from": "last"})
    if t.suite.peer != "ringmq":
        t.quiet(3)
    sent = t.send(count=20)
    t.until_consumed(sent, consumer)
    check_once(sent, consumer)


@case("pull", "pull")
def pull(t):
    """Explicit pulls read every queue to its end, in order. (The C++ client's binding keeps one offset for queues of
    the same number, so its topic is on one broker.)"""
    t.create_topic(brokers=t.cluster.names if t.client.name == "go" else t.cluster.names[:1])
    sent = t.send(count=40)
    messages = []
    for broker in (t.cluster.names if t.client.name == "go" else [None]):
        messages += got(t.start("pull", **({"broker": broker} if broker else {})).wait_for("stopped"))
    check(sorted(m["body"] for m in messages) == sorted(m["body"] for m in sent), "%d of %d messages" % (
        len(messages), len(sent)))
    check_content(sent, messages)
    for broker, queue in t.queues():
        offsets = [m["offset"] for m in messages if (m.get("broker", broker), m["queue"]) == (broker, queue)]
        check(offsets == list(range(offsets[0], offsets[0] + len(offsets))), "offsets of %s/%d: %s" % (
            broker, queue, offsets))


@case("lite-pull-assign", "lite-pull")
def lite_pull_assign(t):
    """Assigned queues are read from where they were sought to."""
    t.create_topic()
    sent = t.send(count=len(t.queues()) * 10)
    wanted = [m for m in sent if m["offset"] >= 4]
    consumer = t.start("pull", seek=4).wait_for("ready")
    t.until_consumed(wanted, consumer)
    consumer.stop()
    check_once(wanted, consumer)
    for broker, queue in t.queues():
        offsets = [m["offset"] for m in got(consumer) if (m["broker"], m["queue"]) == (broker, queue)]
        check(offsets == list(range(4, 4 + len(offsets))), "offsets of %s/%d: %s" % (broker, queue, offsets))


@case("lite-pull-subscribe", "lite-pull")
def lite_pull_subscribe(t):
    """What one run has committed the next does not see, and the two together see all."""
    t.create_topic()
    sent = t.send(count=80)
    first = t.start("pull", max=30).wait_for("stopped").finish()
    seen = {m["body"] for m in got(first)}
    check(30 <= len(seen) < 80, "%d messages came in the first run" % len(seen))
    rest = [m for m in sent if m["body"] not in seen]
    second = t.start("pull").wait_for("ready")
    t.until_consumed(rest, second)
    t.quiet(0.5)
    second.stop()
    check_once(rest, second)


@case("query", "query")
def query(t):
    """By key, by the client's id and by offset id."""
    t.create_topic()
    sent = t.send(count=20)
    wanted = sent[7]
    answers = t.start("query", key="key-" + wanted["body"], id=wanted["id"], offset_id=wanted["offsetId"])
    answers.wait_for("stopped")
    for kind in ("by-key", "by-id", "by-offset-id"):
        found = answers.all(kind)
        check([m["body"] for m in found] == [wanted["body"]], "%s found %s" % (kind, [m["body"] for m in found]))
        check_content(sent, [dict(m, broker=None) for m in found])
    check(not answers.all("found-absent-key"), "an absent key was found")
