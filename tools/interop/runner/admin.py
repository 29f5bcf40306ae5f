"""Java's mqadmin (rocketmq-tools): the verbs for topics, groups, clusters, routes, messages and progress.

Each case runs its commands in one JVM, through mqadmin's own entry point, and checks what they print.
"""
import re

from .clients import CLIENTS
from .context import COLOR, check, got

CASES = []
CLUSTER = "DefaultCluster"


def case(name):
    def register(function):
        CASES.append((name, function))
        return function
    return register


class Shell:
    """mqadmin in one JVM."""

    def __init__(self, t):
        self.t = t
        self.program = t.start("admin", client=CLIENTS["java-5.5.0"]).wait_for("ready")

    def run(self, verb, *arguments):
        before = len(self.program.all("output"))
        self.program.write_line("\t".join([verb, "-n", self.t.cluster.namesrv] + list(arguments)))
        self.t.until(lambda: len(self.program.all("output")) > before or self.program.ended,
                     "mqadmin " + verb, seconds=20)
        check(len(self.program.all("output")) > before, "mqadmin ended in %s" % verb)
        return self.program.all("output")[-1]["text"]

    def expect(self, pattern, verb, *arguments):
        """Runs a command, and returns the match of what it must print."""
        text = self.run(verb, *arguments)
        match = re.search(pattern, text, re.MULTILINE)
        check(match, "mqadmin %s %s: no %r in: %s" % (verb, " ".join(arguments), pattern, text[:2000]))
        return match

    def rows(self, pattern, verb, *arguments):
        return re.findall(pattern, self.run(verb, *arguments), re.MULTILINE)


@case("topics")
def topics(t):
    """updateTopic, topicList, topicRoute, topicClusterList, updateTopicPerm, topicStatus, deleteTopic."""
    shell, brokers = Shell(t), t.cluster.names
    made = shell.run("updateTopic", "-c", CLUSTER, "-t", t.topic, "-r", "3", "-w", "3")
    for address in t.cluster.addresses().values():
        check("create topic to %s success" % address in made, "updateTopic: " + made)
    shell.expect("^%s$" % re.escape(t.topic), "topicList")
    for system in ("TBW102", "SELF_TEST_TOPIC", CLUSTER, brokers[0]):
        shell.expect("^%s$" % system, "topicList")
    shell.expect("^%s$" % CLUSTER, "topicClusterList", "-t", t.topic)
    route = r"^%s +(\S+) +\{0=(\S+)\} +(\d+) +(\d+) +(\d+)" % CLUSTER
    wanted = sorted((name, address, "3", "3", "6") for name, address in t.cluster.addresses().items())
    check(sorted(shell.rows(route, "topicRoute", "-t", t.topic, "-l")) == wanted, "topicRoute -l")
    shell.expect(r'"writeQueueNums":3', "topicRoute", "-t", t.topic)
    sent = t.send(count=12 * len(brokers))
    status = shell.rows(r"^(\S+) +(\d+) +(\d+) +(\d+) ", "topicStatus", "-t", t.topic)
    stored = {(m["broker"], m["queue"]): 0 for m in sent}
    for m in sent:
        stored[(m["broker"], m["queue"])] = max(stored[(m["broker"], m["queue"])], m["offset"] + 1)
    check(sorted(status) == sorted((broker, str(queue), "0", str(end)) for (broker, queue), end in stored.items()),
          "topicStatus: %s, stored: %s" % (status, stored))
    shell.expect("update topic perm from 6 to 4", "updateTopicPerm", "-c", CLUSTER, "-t", t.topic, "-p", "4")
    check({row[4] for row in shell.rows(route, "topicRoute", "-t", t.topic, "-l")} == {"4"}, "perm in the route")
    shell.expect("delete topic .* from cluster .* success", "deleteTopic", "-c", CLUSTER, "-t", t.topic)
    shell.expect("CODE: 17 .*No topic route info", "topicRoute", "-t", t.topic)
    check(t.topic not in shell.run("topicList").split(), "the deleted topic is still listed")


@case("groups")
def groups(t):
    """updateSubGroup, getConsumerConfig, deleteSubGroup."""
    shell = Shell(t)
    shell.expect("create subscription group to .* success", "updateSubGroup", "-c", CLUSTER, "-g", t.group,
                 "-r", "3", "-s", "true", "-d", "false")
    configuration = shell.run("getConsumerConfig", "-g", t.group)
    for key, value in (("groupName", t.group), ("retryMaxTimes", "3"), ("consumeEnable", "true"),
                       ("consumeBroadcastEnable", "false")):
        found = set(re.findall(r"^%s *= +(\S+)" % key, configuration, re.MULTILINE))
        check(found == {value}, "%s is %s: %s" % (key, found, configuration[:1500]))
    shell.expect("delete subscription group .* success", "deleteSubGroup", "-c", CLUSTER, "-g", t.group)


@case("progress")
def progress(t):
    """consumerProgress, consumerConnection and producerConnection of live clients."""
    t.create_topic()
    shell = Shell(t)
    consumer = t.consumer()
    producer = t.producer(count=0, interval=50)
    t.until(lambda: len(got(consumer)) > 20, "messages")
    shell.expect(r"^\S+@\S+ +127\.0\.0\.1:\d+ +JAVA +V5_5_0\s", "consumerConnection", "-g", t.group)
    connection = shell.run("consumerConnection", "-g", t.group)
    for wanted in (r"^%s +\*" % re.escape(t.topic), r"^%%RETRY%%%s +\*" % re.escape(t.group),
                   "ConsumeType: CONSUME_PASSIVELY", "MessageModel: CLUSTERING",
                   "ConsumeFromWhere: CONSUME_FROM_FIRST_OFFSET"):
        check(re.search(wanted, connection, re.MULTILINE), "consumerConnection has no %s: %s" % (wanted, connection))
    shell.expect(r"\S+@\S+ +127\.0\.0\.1:\d+ +JAVA +V5_5_0", "producerConnection", "-g", t.group + "-P", "-t", t.topic)
    sent = producer.stop("done").all("sent")
    t.until_consumed(sent, consumer)
    consumer.stop()  # commits
    row = r"^%s +(\S+) +(\d+) +(\d+) +(\d+) +(\d+) " % re.escape(t.topic)
    rows = shell.rows(row, "consumerProgress", "-g", t.group)
    check(sorted((broker, int(queue)) for broker, queue, *_ in rows) == t.queues(), "consumerProgress: %s" % rows)
    check(all(end == committed and diff == "0" for _, _, end, committed, diff in rows), "progress: %s" % rows)
    check(sum(int(end) for _, _, end, _, _ in rows) == len(sent), "progress of %d messages: %s" % (len(sent), rows))
    shell.expect("Consume Diff Total: 0", "consumerProgress", "-g", t.group)


@case("offsets")
def offsets(t):
    """resetOffsetByTime and consumerStatus with a live consumer, cloneGroupOffset."""
    t.create_topic(brokers=t.cluster.names[:1])
    shell = Shell(t)
    consumer = t.consumer()
    sent = t.send(count=12)
    t.until_consumed(sent, consumer)
    t.quiet(6)  # commits
    shell.expect(r"JVM|ConsumeType|#Consumer|Consumer", "consumerStatus", "-g", t.group)
    shell.expect(r"^%s +0 +0" % re.escape(t.cluster.names[0]), "resetOffsetByTime", "-g", t.group,
                 "-t", t.topic, "-s", "1000")
    t.until(lambda: len(got(consumer)) >= 2 * len(sent), "the messages once more", seconds=40)
    shell.expect("create subscription group to .* success", "updateSubGroup", "-c", CLUSTER, "-g", t.group + "-2")
    shell.expect("clone group offset success", "cloneGroupOffset", "-s", t.group, "-d", t.group + "-2", "-t", t.topic,
                 "-o", "true")


@case("messages")
def messages(t):
    """queryMsgById, queryMsgByKey, queryMsgByUniqueKey, queryMsgByOffset, printMsg, sendMessage, consumeMessage."""
    t.create_topic()
    shell = Shell(t)
    sent = t.send(count=20 * len(t.cluster.names), tags="TagA")
    m = sent[7]
    t.until(lambda: m["id"] in shell.run("queryMsgByKey", "-t", t.topic, "-k", "key-" + m["body"]),
            "the key index", seconds=10)
    for text in (shell.run("queryMsgById", "-t", t.topic, "-i", m["offsetId"]),
                 shell.run("queryMsgByUniqueKey", "-t", t.topic, "-i", m["id"]),
                 shell.run("queryMsgByOffset", "-t", t.topic, "-b", m["broker"], "-i", str(m["queue"]),
                           "-o", str(m["offset"]))):
        for wanted in (r"Keys: +\[key-%s\]" % m["body"], r"Tags: +\[TagA\]", "UNIQ_KEY=" + m["id"], "color=" + COLOR,
                       r"Queue ID: +%d$" % m["queue"], r"Queue Offset: +%d$" % m["offset"]):
            check(re.search(wanted, text, re.MULTILINE), "no %r in %s" % (wanted, text[:1500]))
    printed = shell.rows("^MSGID: ([0-9A-F]+) ", "printMsg", "-t", t.topic)
    check(sorted(printed) == sorted(m["id"] for m in sent), "printMsg shows %d of %d" % (len(printed), len(sent)))
    new = shell.expect(r"^(\S+) +(\d+) +SEND_OK +([0-9A-F]+)", "sendMessage", "-t", t.topic, "-p", "hello",
                       "-k", "the-key", "-c", "TagB").group(3)
    check(new in shell.run("printMsg", "-t", t.topic), "the message sent by mqadmin is not printed")
    shell.expect("^MSGID: ", "consumeMessage", "-t", t.topic, "-b", m["broker"], "-i", "0", "-o", "0", "-c", "1")


@case("cluster")
def clusters(t):
    """clusterList, brokerStatus, getBrokerConfig, and the name server's key-value verbs."""
    shell = Shell(t)
    addresses = t.cluster.addresses()
    listed = shell.rows(r"^%s +(\S+) +0 +(\S+) +V5_\S+ " % CLUSTER, "clusterList")
    check(sorted(listed) == sorted(addresses.items()), "clusterList: %s" % listed)
    moved = shell.rows(r"^%s +(\S+) +\d+ +\d+ +\d+ +\d+$" % CLUSTER, "clusterList", "-m")
    check(sorted(moved) == sorted(addresses), "clusterList -m: %s" % moved)
    for name, address in addresses.items():
        status = dict(re.findall(r"^(\S+?) *: (.*)$", shell.run("brokerStatus", "-b", address), re.MULTILINE))
        for key, form in RUNTIME.items():
            check(re.fullmatch(form, status.get(key, "").strip()), "brokerStatus: %s is %r" % (key, status.get(key)))
        configuration = dict(re.findall(r"^(\S+) += +(.*)$", shell.run("getBrokerConfig", "-b", address), re.MULTILINE))
        for key, value in (("brokerName", name), ("brokerClusterName", CLUSTER), ("brokerId", "0"),
                           ("listenPort", address.split(":")[1]), ("flushDiskType", "SYNC_FLUSH")):
            check(configuration.get(key) == value, "getBrokerConfig: %s is %r" % (key, configuration.get(key)))
    shell.expect("create or update kv config to namespace success", "updateKvConfig", "-s", t.topic, "-k", "k",
                 "-v", "v")
    shell.expect("delete kv config from namespace success", "deleteKvConfig", "-s", t.topic, "-k", "k")


NUMBER, RATES = r"\d+", r"\d+\.\d+( \d+\.\d+){0,2}"
# What mqadmin and rocketmq-exporter read, with the forms that they parse.
RUNTIME = {
    "brokerVersionDesc": r"V5_\d_\d", "bootTimestamp": NUMBER, "commitLogMinOffset": NUMBER, "commitLogMaxOffset": NUMBER,
    "commitLogDiskRatio": r"\d\.\d+", "consumeQueueDiskRatio": r"\d\.\d+", "dispatchBehindBytes": NUMBER,
    "commitLogDirCapacity": r"Total : \d+\.\d \wiB, Free : \d+\.\d \wiB\.", "earliestMessageTimeStamp": r"-?\d+",
    "getFoundTps": RATES, "getMissTps": RATES, "getTotalTps": RATES, "getTransferredTps": RATES, "putTps": RATES,
    "msgPutTotalTodayNow": NUMBER, "msgGetTotalTodayNow": NUMBER, "pageCacheLockTimeMills": NUMBER,
    "putMessageTimesTotal": NUMBER, "putMessageSizeTotal": NUMBER, "remainHowManyDataToFlush": r"[\d.]+ (B|KiB|MiB)",
    "runtime": r"\[ \d+ days, \d+ hours, \d+ minutes, \d+ seconds \]", "sendThreadPoolQueueSize": NUMBER,
}
