"""Where groups stand and who moves them, what consumers are asked through the broker, ordered topics, name spaces."""
import re
import time
from collections import Counter

from . import remoting
from .admin import CLUSTER, Shell
from .cases import case
from .context import check, check_once, got

CONSUMER_STATUS = 223


def client_id(shell, group):
    """The id of the group's only consumer."""
    return shell.expect(r"^(\S+@\S+) +127\.0\.0\.1:\d+", "consumerConnection", "-g", group).group(1)


@case("from-timestamp", "from-timestamp")
def from_timestamp(t):
    """A new group on a young topic begins at its first message, also when it asks for a time."""
    t.create_topic()
    old = t.send(count=20, prefix="old")
    consumer = t.consumer(**{"from": "timestamp"})
    t.until_consumed(old, consumer)
    check_once(old, consumer)


@case("reset-offline", "admin", waits=True)
def reset_offline(t):
    """A group that nobody is online of is moved to now, and to a moment between two sends."""
    t.create_topic(brokers=t.cluster.names[:1])
    shell, moments = Shell(t), []
    first = t.consumer()
    sent = [t.send(count=8, prefix="consumed")]
    t.until_consumed(sent[0], first)
    first.stop()
    for prefix in ("before", "after"):
        moments.append(str(int(time.time() * 1000)))
        t.quiet(0.2)
        sent.append(t.send(count=8, prefix=prefix))
    t.quiet(0.2)
    for moment, force, expected in (("now", "false", []), (moments[1], "true", sent[2]), (moments[0], "true", sent[1] + sent[2])):
        shell.expect(r"^%s +\d+ +\d+" % t.cluster.names[0], "resetOffsetByTime", "-g", t.group, "-t", t.topic,
                     "-s", moment, "-f", force)
        member = t.consumer()
        t.until_consumed(expected, member)
        t.quiet(1)
        member.stop()
        check_once(expected, member)


@case("reset-clients", "legacy-reset", waits=True)
def reset_clients(t):
    """With server-side resets off the members are told to move (220), only back unless it is forced."""
    t.create_topic(queues=1, brokers=t.cluster.names[:1])
    shell, consumer = Shell(t), t.consumer()
    before = t.send(count=5, prefix="before")
    t.quiet(0.3)
    moment = str(int(time.time() * 1000))
    t.quiet(0.3)
    after = t.send(count=5, prefix="after")
    t.until_consumed(before + after, consumer)
    t.quiet(6)  # commits
    for force in ("false", "true"):
        count = len(got(consumer))
        shell.expect(r"^%s +0 +5" % t.cluster.names[0], "resetOffsetByTime", "-g", t.group, "-t", t.topic, "-s", moment,
                     "-f", force)
        t.until(lambda: len(got(consumer)) >= count + 5, "the later messages once more", seconds=30)
        t.quiet(6)
    counts = Counter(m["body"] for m in got(consumer))
    check(counts == Counter([m["body"] for m in before + 3 * after]), "deliveries: %s" % counts)


@case("ask-consumer", "admin")
def ask_consumer(t):
    """A live consumer is asked for its insides (307) and its offsets (223, 221), and handed a message (309)."""
    t.create_topic(brokers=t.cluster.names[:1])
    shell, consumer = Shell(t), t.consumer()
    sent = t.send(count=8)
    t.until_consumed(sent, consumer)
    who = client_id(shell, t.group)
    info = shell.run("consumerStatus", "-g", t.group, "-i", who)
    for wanted in ("PROP_CONSUMER_START_TIMESTAMP", "CONSUME_PASSIVELY", t.topic, "%RETRY%" + t.group):
        check(wanted in info, "307 has no %s: %s" % (wanted, info[:2000]))
    address = t.cluster.addresses()[t.cluster.names[0]]
    _, status = remoting.expect_success(address, CONSUMER_STATUS, {"topic": t.topic, "group": t.group})
    # The client's own map, whose keys are objects: no JSON for Python.
    held = sorted(re.findall(r'"queueId":(\d)[^{}]*\}:(\d+)', status.decode()))
    check(who in status.decode() and held == [(str(queue), "2") for queue in range(4)], "221: %s" % status)
    wanted = sent[3]
    for key, value in (("queryMsgByUniqueKey", wanted["id"]), ("queryMsgById", wanted["offsetId"])):
        text = shell.run(key, "-t", t.topic, "-i", value, "-g", t.group, "-d", who)
        check("CR_SUCCESS" in text, "309 by %s: %s" % (key, text[:2000]))
    t.until(lambda: Counter(m["body"] for m in got(consumer))[wanted["body"]] == 3, "the message two times more")


@case("order-topic", "admin")
def order_topic(t):
    """The name server's order configuration fixes a topic's queues: those of a broker that is down are not replaced."""
    t.create_topic(queues=2, brokers=t.cluster.names[:1])
    shell, broker = Shell(t), t.cluster.names[0]
    shell.run("updateNamesrvConfig", "-k", "orderMessageEnable", "-v", "true")
    shell.expect("update orderConf success", "updateOrderConf", "-m", "put", "-t", t.topic, "-v", broker + ":2;broker-down:2")
    shell.expect(broker + ":2;broker-down:2", "updateOrderConf", "-m", "get", "-t", t.topic)
    t.until(lambda: "broker-down:2" in remoting.order_of(t.cluster.namesrv, t.topic), "the order in the route")
    producer = t.producer(count=16, sharding=4).wait_for("done")
    check([m["n"] % 4 for m in producer.all("failed")] == [2, 3] * 4, "failed: %s" % producer.all("failed"))
    check([(m["n"] % 4, m["broker"], m["queue"]) for m in producer.all("sent")] == [(q, broker, q) for q in (0, 1)] * 4,
          "sent: %s" % producer.all("sent"))
    consumer = t.consumer(order="orderly")
    t.until_consumed(producer.all("sent"), consumer)
    shell.expect("delete orderConf success", "updateOrderConf", "-m", "delete", "-t", t.topic)
    t.until(lambda: not remoting.order_of(t.cluster.namesrv, t.topic), "the order to be gone from the route")
    # A topic that is made for order gets the configuration from its queues.
    ordered = shell.run("updateTopic", "-c", CLUSTER, "-t", t.topic, "-r", "2", "-w", "2", "-o", "true")
    wanted = ";".join(sorted(name + ":2" for name in t.cluster.names))
    t.until(lambda: ";".join(sorted(remoting.order_of(t.cluster.namesrv, t.topic).split(";"))) == wanted,
            lambda: "the order %s: %s" % (wanted, ordered))


@case("namespace", "namespace", waits=True)
def namespace(t):
    """Topics, groups and retries in a name space of the client's: seen by its clients alone, under their plain names."""
    plain, group = t.topic, t.group
    for space in ("INST_1", "INST_2"):
        t.topic, t.group = space + "%" + plain, space + "%" + group
        t.create_topic()
        t.create_retry_topic()
    t.topic, t.group = plain, group
    spaces = {space: t.consumer(namespace=space, failures=1, **{"retry-level": 1}) for space in ("INST_1", "INST_2")}
    # Go's and Node's consumers show a topic with its name space.
    shows_space = t.client.name in ("go", "node")
    for space, consumer in spaces.items():
        sent = t.send(count=8, prefix=space, namespace=space)
        t.until(lambda: len(got(consumer)) >= 16, "each message twice", seconds=60)
        check(Counter(m["body"] for m in got(consumer)) == Counter([m["body"] for m in sent] * 2), "deliveries in " + space)
        check({m["topic"] for m in got(consumer)} == {space + "%" + plain if shows_space else plain}, "topics: %s" % {m["topic"] for m in got(consumer)})


@case("namespace-v2", "recall")
def namespace_v2(t):
    """The name space of 5.x goes along with requests, and changes no name at a broker."""
    t.create_topic()
    consumer = t.consumer(**{"namespace-v2": "ns"})
    sent = t.send(count=20, **{"namespace-v2": "ns"})
    t.until_consumed(sent, consumer)
    check_once(sent, consumer)
