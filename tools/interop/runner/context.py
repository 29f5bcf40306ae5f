"""What a case works with: its own topic and groups, the client's programs, and checks of what they report."""
import itertools
import os
import time
from collections import Counter

from . import remoting
from .processes import Driver, Failure

CASE_SECONDS = 60
WARM_UP = "warm-up"  # bodies that the runner sends itself begin with this, and no check looks at them
COLOR = "blågrønn 青"


class Context:
    def __init__(self, suite, client, case, seconds=CASE_SECONDS):
        self.suite, self.client, self.cluster = suite, client, suite.cluster
        self.deadline = time.monotonic() + seconds
        name = "%s-%s" % (client.name, case)
        self.directory = os.path.join(suite.directory, name)
        os.makedirs(self.directory, exist_ok=True)
        self.topic = "T-%s-%s" % (name.replace(".", "_"), suite.tag)
        self.group = "G-%s-%s" % (name.replace(".", "_"), suite.tag)
        self.drivers = []
        self.number = itertools.count()
        self.primed = set()

    # --- topics ---------------------------------------------------------------------------------------------------

    def create_topic(self, queues=4, brokers=None, attributes=""):
        """Makes the case's topic on these brokers (all of them by default), or changes its attributes."""
        addresses = self.cluster.addresses()
        names = brokers or list(addresses)
        for name in names:
            remoting.create_topic(addresses[name], self.topic, queues, attributes)
        self.until(lambda: remoting.route(self.cluster.namesrv, self.topic) == dict.fromkeys(names, queues),
                   "the route of " + self.topic)

    def create_retry_topic(self):
        """As the group's first heartbeat does: clients learn of a topic that comes later after half a minute only."""
        for address in self.cluster.addresses().values():
            remoting.create_topic(address, "%RETRY%" + self.group, 1)
        self.until(lambda: remoting.route(self.cluster.namesrv, "%RETRY%" + self.group), "the retry topic's route")

    def depth(self, topic):
        """Messages in the first queue of a topic, on all brokers."""
        return sum(remoting.max_offset(address, topic, 0) for address in self.cluster.addresses().values())

    def queues(self):
        return [(broker, queue) for broker, count in sorted(remoting.route(self.cluster.namesrv, self.topic).items())
                for queue in range(count)]

    def warm_up(self):
        """One message that no check looks at, to each queue."""
        addresses = self.cluster.addresses()
        for broker, queue in self.queues():
            remoting.send(addresses[broker], self.topic, queue, "%s-%d" % (WARM_UP, next(self.number)))

    # --- programs -------------------------------------------------------------------------------------------------

    def start(self, verb, client=None, **arguments):
        client = client or self.client
        number = next(self.number)
        home = os.path.join(self.directory, "home-%d" % number)
        os.makedirs(home, exist_ok=True)
        scenario = {"namesrv": self.cluster.namesrv, "topic": self.topic, "group": self.group,
                    "instance": "i%d" % number}
        scenario.update((name.replace("_", "-"), value) for name, value in arguments.items())
        command = client.command(verb, home)
        for name, value in scenario.items():
            command += ["--" + name, str(value)]
        name = "%s-%s-%d" % (client.name, verb, number)
        driver = Driver(self.suite.group, name, command, os.path.join(self.directory, name + ".log"), self.deadline,
                        env=client.environment(home), cwd=self.directory)
        self.drivers.append(driver)
        return driver

    def producer(self, **arguments):
        return self.start("send", group=self.group + "-P", **arguments).wait_for("ready")

    def send(self, **arguments):
        """Runs a producer to its end; every message must have been accepted."""
        producer = self.producer(**arguments).wait_for("done").finish()
        failed = producer.all("failed")
        check(not failed, "%d sends failed, the first: %s" % (len(failed), failed[:1]))
        sent = producer.all("sent")
        check(len(sent) == arguments["count"], "%d of %d sends reported" % (len(sent), arguments["count"]))
        for status in {message.get("status", "SEND_OK") for message in sent}:
            check(status == "SEND_OK", "send status %s" % status)
        return sent

    def consumer(self, **arguments):
        """Starts a push consumer. A client that can only begin at the last offset gets queues that hold a message:
        Java brokers make a new group on an empty queue begin behind what is sent before its first rebalance."""
        if arguments.get("model") != "broadcasting" and "first" not in self.client.can and not self.primed:
            self.primed.add(self.topic)
            self.warm_up()
        return self.start("consume", **arguments).wait_for("ready")

    def close(self):
        for driver in self.drivers:
            driver.kill()

    # --- waiting --------------------------------------------------------------------------------------------------

    def until(self, condition, what, seconds=None):
        limit = self.deadline if seconds is None else min(self.deadline, time.monotonic() + seconds)
        while not condition():
            if time.monotonic() > limit:
                what = what() if callable(what) else what
                raise Failure("ran out of time waiting for " + what)
            time.sleep(0.05)

    def until_consumed(self, sent, *consumers, seconds=None):
        """Waits until each body that was sent has come to one of the consumers."""
        wanted = {message["body"] for message in sent}

        def missing():
            return wanted - {message["body"] for consumer in consumers for message in got(consumer)}

        self.until(lambda: not missing(), lambda: "%d of %d messages, for example %s" % (
            len(missing()), len(wanted), sorted(missing())[:3]), seconds)

    def shared(self, window, members):
        """Whether, of what came in the last `window` seconds, each queue came to one member and each member got some.
        The C++ client's binding does not tell the broker: with several, only that all queue ids came is known."""
        since = time.monotonic() - window
        parts = [{(m["broker"], m["queue"]) if "broker" in m else m["queue"]
                  for at, m in member.timed("message") if at > since} for member in members]
        queues = set(self.queues())
        union = set().union(*parts)
        if union <= queues:
            return all(parts) and union == queues and sum(map(len, parts)) == len(queues)
        return all(parts) and union == {queue for _, queue in queues} \
            and (len(self.cluster.names) > 1 or sum(map(len, parts)) == len(queues))

    def until_shared(self, window, *members):
        self.until(lambda: self.shared(window, members), "the queues to be shared by %d members" % len(members))

    def until_on_all_queues(self, *members):
        """Warms up until every queue has come to each member."""
        def on_all(member):
            return {m["queue"] for m in member.all("message")} >= {queue for _, queue in self.queues()}

        while not all(on_all(member) for member in members):
            check(time.monotonic() < self.deadline, "a member is not on all queues")
            self.warm_up()
            self.quiet(0.3)

    def quiet(self, seconds=1.0):
        """Time for messages to come that must not come."""
        time.sleep(max(0, min(seconds, self.deadline - time.monotonic())))


def check(condition, message):
    if not condition:
        raise Failure(message)


def got(consumer):
    return [message for message in consumer.all("message") if not message["body"].startswith(WARM_UP)]


def check_sent(sent):
    """Ids are unique, and the offsets of each queue are continuous."""
    ids = [message["id"] for message in sent if message.get("id")]
    check(len(ids) == len(set(ids)), "message ids repeat")
    offsets = {}
    for message in sent:
        if "queue" in message:
            offsets.setdefault((message["broker"], message["queue"]), []).append(message["offset"])
    for queue, found in offsets.items():
        found.sort()
        check(found == list(range(found[0], found[0] + len(found))), "offsets of %s have gaps: %s" % (queue, found))


def check_once(sent, *consumers):
    """What came is what was sent: each message once, with its keys, tag, property, id and place."""
    messages = [message for consumer in consumers for message in got(consumer)]
    counts = Counter(message["body"] for message in messages)
    extra = [body[:80] for body in counts if body not in {message["body"] for message in sent}]
    check(not extra, "%d messages came that were not sent here, for example %s" % (len(extra), extra[:3]))
    twice = [body[:80] for body, count in counts.items() if count > 1]
    check(not twice, "%d messages came more than once, for example %s" % (len(twice), twice[:3]))
    check_content(sent, messages)


def check_content(sent, messages):
    by_body = {message["body"]: message for message in sent}
    for message in messages:
        origin = by_body[message["body"]]
        check(message["keys"] == "key-" + message["body"][:len(message["keys"]) - 4],
              "keys %r of %r" % (message["keys"], message["body"][:80]))
        check(message["color"] == COLOR, "property color is %r" % message["color"])
        for field in ("id", "broker", "queue", "offset"):
            if origin.get(field) is not None and message.get(field) is not None:
                check(message[field] == origin[field], "%s of %r: sent %s, got %s" % (
                    field, message["body"][:80], origin[field], message[field]))
