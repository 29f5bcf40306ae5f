"""Cases during which the brokers are restarted. They run together, so that one restart serves them all."""
import signal
import threading
import time

from . import remoting
from .cases import check_order
from .context import check, check_content, check_once, check_sent, got
from .once import check_places, check_repeats
from .processes import Failure


# Some clients notice a broken connection only when their pull times out (30 s), and are unknown to the broker until their
# next heartbeat (30 s); a Java broker needs 20 s and more to end and be ready again.
SECONDS = {"ringmq": 150, "java": 240, "mixed": 240}

OFFSETS_FLUSHED = {"ringmq": 2, "java": 12, "mixed": 12}  # once a second; the Java broker begins with that 10 s after its start


class Gate:
    """Lets the restart happen when every case that still runs has come to it."""

    def __init__(self, cluster, parties, report):
        self.cluster, self.running, self.report = cluster, parties, report
        self.changed = threading.Condition()
        self.waiting = 0
        self.round = 0
        self.failure = None

    def pass_with(self, how, deadline):
        """Restarts the brokers with the signal."""
        def restart():
            ended, ready = self.cluster.restart(how)
            return "brokers restarted with %s: ended in %.2f s, ready again after %.2f s" % (how.name, ended, ready)

        self._pass(restart, deadline)

    def kill(self, broker, deadline):
        """Kills a broker, which is then down."""
        def end():
            self.cluster.end(signal.SIGKILL, [broker])
            return "%s killed" % broker

        self._pass(end, deadline)

    def start(self, deadline):
        """Starts what is down."""
        self._pass(lambda: "brokers ready again after %.2f s" % self.cluster.start(), deadline)

    def _pass(self, action, deadline):
        with self.changed:
            mine = self.round
            self.waiting += 1
            self._open(action)
            while self.round == mine:
                left = deadline - time.monotonic()
                if left <= 0:
                    self.waiting -= 1
                    raise Failure("ran out of time waiting for the other cases before a restart")
                self.changed.wait(min(left, 0.2))
                if self.round == mine:
                    self._open(action)
            if self.failure:
                raise Failure("restart: %s" % self.failure)

    def leave(self):
        with self.changed:
            self.running -= 1
            self.changed.notify_all()

    def _open(self, action):
        if self.waiting < self.running:
            return
        try:
            self.report("      " + action())
        except Failure as failure:
            self.failure = failure
        self.round += 1
        self.waiting = 0
        self.changed.notify_all()


def offsets(t, gate):
    """Committed offsets outlive the broker: after a clean stop, and after a kill once they had time to be flushed."""
    t.create_topic()
    for number, how in enumerate((signal.SIGTERM, signal.SIGKILL, None)):
        sent = t.send(count=40, prefix="round-%d" % number)
        check_sent(sent)
        consumer = t.consumer()
        t.until_consumed(sent, consumer)
        t.quiet(0.5)
        consumer.stop()
        check_once(sent, consumer)
        if how == signal.SIGKILL:
            t.quiet(OFFSETS_FLUSHED[t.suite.peer])
        if how:
            gate.pass_with(how, t.deadline)


def live(t, gate):
    """A producer and a consumer live through a clean restart and a kill: all that was acknowledged comes."""
    t.create_topic()
    producer = t.producer(count=0, interval=25)
    consumer = t.consumer()
    for how in (signal.SIGTERM, signal.SIGKILL):
        progress(t, producer, consumer)
        gate.pass_with(how, t.deadline)
    progress(t, producer, consumer)
    sent = producer.stop("done").all("sent")
    t.until_consumed(sent, consumer)
    attempted = sent + producer.all("failed")
    known = {m["body"] for m in attempted}
    check(all(m["body"] in known for m in got(consumer)), "messages came that were never sent")
    places = {}
    for m in got(consumer):
        if "broker" in m or len(t.cluster.names) == 1:
            first = places.setdefault((m.get("broker"), m["queue"], m["offset"]), m["body"])
            check(first == m["body"], "two messages share a place: %s and %s" % (first, m))
    # A send whose answer was lost may be repeated by the client, so the id and place of such a message may differ.
    check_content([{"body": m["body"]} for m in attempted], got(consumer))


def progress(t, producer, consumer):
    """Waits until messages sent from now on come to the consumer."""
    seen = len(producer.all("sent"))
    t.until(lambda: len(producer.all("sent")) >= seen + 20, "the producer to go on")
    t.until_consumed(producer.all("sent")[seen:], consumer)


def dedupe(t, gate):
    """What was stored for a DEDUPE_KEY is known after a clean restart and after a kill."""
    t.create_topic(brokers=t.cluster.names[:1], attributes="+dedupe.window=600000")
    stored = []
    for number, how in enumerate((signal.SIGTERM, signal.SIGKILL, None)):
        sent = t.send(count=4 * (number + 1), dedupe=4 * (number + 1), prefix="round-%d" % number)
        check_repeats(sent[:len(stored)], stored)
        stored += sent[len(stored):]
        check_places(stored)
        if how:
            gate.pass_with(how, t.deadline)
    consumer = t.consumer()
    t.until_consumed(stored, consumer)
    t.quiet(0.5)
    check_once(stored, consumer)


def order_outage(t, gate):
    """With a broker of an order topic down its keys' messages fail, none goes to another queue, and the others stay in
    order; once the broker is back, all go on where they were."""
    present, lost = t.cluster.names[:2]
    t.create_topic(queues=2, brokers=[present, lost])
    remoting.set_order(t.cluster.namesrv, t.topic, "%s:2;%s:2" % (present, lost))
    t.until(lambda: remoting.order_of(t.cluster.namesrv, t.topic), "the order in the route")
    consumer = t.consumer(order="orderly")
    producer = t.producer(count=0, interval=50, sharding=4, **{"route-ms": 3000})
    t.until(lambda: len(got(consumer)) >= 40, "the first messages")
    gate.kill(lost, t.deadline)
    t.until(lambda: lost not in remoting.route(t.cluster.namesrv, t.topic), "the route without " + lost)
    # One that has its route from before, and one whose route lacks the broker.
    before = len(producer.all("sent"))
    t.until(lambda: len(producer.all("sent")) >= before + 20 and len(producer.all("failed")) >= 20, "sends to go on")
    newcomer = t.producer(count=16, sharding=4, prefix="new").wait_for("done")
    check([m["n"] % 4 for m in newcomer.all("failed")] == [2, 3] * 4, "failed: %s" % newcomer.all("failed"))
    check({m["n"] % 4 for m in producer.all("failed")} == {2, 3}, "failed: %s" % producer.all("failed"))
    gate.start(t.deadline)
    count = len(producer.all("sent"))
    t.until(lambda: len({m["n"] % 4 for m in producer.all("sent")[count:]}) == 4, "all keys to go on")
    sent = producer.stop("done").all("sent")
    places = {(m["n"] % 4, m["broker"], m["queue"]) for m in sent + newcomer.all("sent")}
    wanted = {(key, broker, key % 2) for key, broker in enumerate((present, present, lost, lost))}
    check(places == wanted, "queues of the keys: %s" % sorted(places))
    t.until_consumed(sent + newcomer.all("sent"), consumer)
    check_order(sent, 4, consumer)


CASES = [("restart-offsets", "clustering", offsets), ("restart-live", "sync", live), ("restart-dedupe", "limits", dedupe)]
OUTAGES = [("order-outage", "order-topic", order_outage)]  # with several brokers
