"""Dead letters under `ringmq dlq`, quotas, and message types, as a Java client meets them."""
import json
import subprocess
import time

from .admin import CLUSTER, Shell
from .cases import case
from .context import check, check_once, got
from .processes import Failure


def dlq(t, *words):
    """The lines that `ringmq dlq` prints."""
    command = [t.suite.binary, "dlq", "--namesrv", t.cluster.namesrv, "--json"] + list(words)
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=40, check=False)
    except subprocess.TimeoutExpired:
        raise Failure("ringmq dlq %s takes more than 40 s" % " ".join(words)) from None
    check(done.returncode == 0, "ringmq dlq %s: %s" % (" ".join(words), done.stderr.decode()))
    return [json.loads(line) for line in done.stdout.splitlines()]


@case("dlq", "dlq", waits=True)
def dead_letters_again(t):
    """What a consumer gave up is listed, shown, replayed to its topic once, and purged by `ringmq dlq`."""
    t.create_topic()
    t.create_retry_topic()
    consumer = t.consumer(failures=9, **{"max-reconsume": 0})
    early = t.send(count=5, prefix="early")
    t.until(lambda: t.depth("%DLQ%" + t.group) == 5, "five dead letters")
    t.quiet(0.2)
    moment = str(int(time.time() * 1000))
    t.quiet(0.2)
    sent = early + t.send(count=5, prefix="late")
    t.until(lambda: t.depth("%DLQ%" + t.group) == 10, "ten dead letters")
    consumer.stop()

    def listed():
        return [(one["messages"], one["notReplayed"]) for one in dlq(t, "list") if one["group"] == t.group]

    t.until(lambda: listed() == [(10, 10)], "the list")
    shown = dlq(t, "show", t.group)
    check(sorted((one["body"], one["id"], one["originTopic"]) for one in shown)
          == sorted((m["body"], m["id"], t.topic) for m in sent), "shown: %s" % shown)
    again = t.consumer()
    key = "key-" + sent[2]["body"]
    t.until(lambda: len(dlq(t, "show", t.group, "--key", key)) == 1, "the key index")

    def replay(*words):
        return [(one["sent"], one["sentBefore"]) for one in dlq(t, "replay", t.group, *words)]

    counts = replay("--key", key) + replay("--key", key) + replay("--until", moment)
    check(counts == [(1, 0), (0, 1), (4, 1)], "replays by key and time, sent and sent before: %s" % counts)
    t.until_consumed(early, again)
    check({m["body"] for m in got(again)} == {m["body"] for m in early}, "what died later came, too")
    begun = time.monotonic()
    check(replay("--from", moment, "--rate", "5") == [(5, 0)], "the replay of those that died later")
    check(time.monotonic() - begun >= 0.8, "five messages at five a second took %.1f s" % (time.monotonic() - begun))
    counts = replay() + replay()
    check(counts == [(0, 10), (0, 0)], "replays of all, sent and sent before: %s" % counts)
    t.until_consumed(sent, again)
    t.quiet(1)
    check_once([dict(m, queue=None, offset=None, broker=None) for m in sent], again)
    check([one["deleted"] for one in dlq(t, "purge", t.group, "--yes")] == [True], "the purge")
    check(listed() == [], "dead letters after the purge")


def why(failed):
    """Why a send failed; Java's client tells it in the cause of its exception."""
    return failed.get("cause") or failed["error"]


@case("quota", "limits", waits=True)
def quota(t):
    """Sends beyond a quota of the topic or the group of producers fail with 2, which tells why; pulls beyond one wait."""
    shell = Shell(t)
    t.create_topic(queues=1, attributes="+quota.send=20")
    producer = t.producer(count=60).wait_for("done")
    failed, sent = producer.all("failed"), producer.all("sent")
    check(20 <= len(sent) < 60 and failed, "%d sent, %d failed" % (len(sent), len(failed)))
    check(all("topic %s is" % t.topic in why(m) and "over its quota of 20 a second" in why(m) for m in failed),
          "failures: %s" % failed[:2])
    t.create_topic(queues=1, attributes="-quota.send")
    for group, attribute in ((t.group + "-P", "+quota.send=20"), (t.group, "+quota.pull=20")):
        shell.expect("create subscription group to .* success", "updateSubGroup", "-c", CLUSTER, "-g", group,
                     "--attributes", attribute)
    limited = t.producer(count=60, prefix="group").wait_for("done")
    check(limited.all("failed") and all("group %s-P is" % t.group in why(m) for m in limited.all("failed")),
          "failures: %s" % limited.all("failed")[:2])
    sent += limited.all("sent")
    consumer = t.consumer()
    t.until_consumed(sent, consumer)
    check_once(sent, consumer)


@case("message-type-check", "limits")
def message_type_check(t):
    """With the check on, a topic of a type takes no message of another."""
    t.create_topic(queues=1, attributes="+message.type=NORMAL")
    producer = t.producer(count=3, **{"delay-level": 1}).wait_for("done")
    wanted = "TopicMessageType validate failed, the expected type is NORMAL, but actual type is DELAY"
    check(len(producer.all("failed")) == 3 and all(wanted in m["error"] for m in producer.all("failed")),
          "failed: %s" % producer.all("failed"))
    sent = t.send(count=3, prefix="plain")
    consumer = t.consumer()
    t.until_consumed(sent, consumer)
    check({m["body"] for m in got(consumer)} == {m["body"] for m in sent}, "what came")
