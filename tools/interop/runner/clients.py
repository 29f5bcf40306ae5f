"""How each client's test programs are started, and what the client can do."""
import os
import sys

from .install import HERE, place

COMMON = {"sync", "async", "clustering", "broadcasting", "tags"}
JVM = ["java", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"]


class Client:
    """`can` names the abilities that decide which cases a client takes part in."""

    def __init__(self, name, can):
        self.name = name
        self.can = COMMON | can

    def environment(self, home):
        """Clients keep logs and broadcast offsets in the home directory: each case gives them one of its own."""
        return dict(os.environ, HOME=home)


class JavaClient(Client):
    def command(self, verb, home):
        main = {"send": "Send", "consume": "Consume", "pull": "LitePull", "query": "Query", "admin": "Admin",
                "transact": "Transact", "request": "Request", "respond": "Respond", "recall": "Recall",
                "pull-lmq": "PullLmq"}[verb]
        jars = "%s:%s" % (place(self.name, "classes"), place(self.name, "lib", "*"))
        return JVM + ["-Duser.home=" + home, "-Drocketmq.client.localOffsetStoreDir=" + home, "-cp", jars,
                      "interop." + main]


class GoClient(Client):
    def command(self, verb, home):
        return [place("go-interop"), verb]


class NodeClient(Client):
    def command(self, verb, home):
        return ["node", os.path.join(HERE, "node", verb + ".js")]

    def environment(self, home):
        return dict(super().environment(home), NODE_PATH=place("node", "node_modules"))


class CppClient(Client):
    """The C++ client, through its Python binding. It always begins at the last offset."""

    def command(self, verb, home):
        return [sys.executable, os.path.join(HERE, "python", verb + ".py")]

    def environment(self, home):
        return dict(super().environment(home), PYTHONPATH=place("python"), PYTHONDONTWRITEBYTECODE="1")


# What a client cannot do, as seen against the Java broker too:
# - node: ali-ons asks for a topic's own route only, so it cannot send to a topic that does not exist yet.
# - cpp: a batch is sent as request 10 with batch="1", which the Java broker takes for one message; and an ordered
#   member that leaves does not unlock its queues, so the others get them when the broker's locks expire (60 s).
# - go: an ordered member unlocks its queues when it leaves, but not when a new member is to get some of them.
# - node, cpp: they leave the delay of a retry to the broker (10 s for the first), and cpp how often there is one.
# - go: its CreateReplyMessage leaves out the body, which brokers refuse, so it sends requests only; and it does not make the system's trace topic, which a Java broker has not from the start.
# - go: it leaves the order configuration out of the routes that it reads, so that keys move while a broker is down; and
#   what it sends to batch queues it cannot read itself.
# - go, node: they do not have the name space of 5.x; and they show a topic with its name space of 4.x.
# - cpp: why a broker refused a send it does not tell ("No route info of this topic"), so that quotas and types cannot
#   be checked; its C interface, which the binding uses, has no transactions; SQL92, traces and requests neither has node.
JAVA = {"auto-create", "sql", "oneway", "batch", "orderly", "share-ordered", "leave-ordered", "first", "lite-pull",
        "query", "transactions", "request-reply", "retry", "retry-level", "dead-letters", "orderly-retry", "trace",
        "system-trace", "priority", "lmq", "inner-batch", "deletion", "from-timestamp", "namespace", "order-topic"}
CLIENTS = {client.name: client for client in (
    JavaClient("java-5.5.0", JAVA | {"recall", "admin", "dlq", "dedupe", "limits", "legacy-reset"}),
    JavaClient("java-4.9.8", JAVA),
    GoClient("go", {"auto-create", "sql", "oneway", "batch", "orderly", "leave-ordered", "first", "pull", "retry",
                    "retry-level", "dead-letters", "orderly-retry", "transactions", "trace", "requests", "inner-batch",
                    "priority", "deletion", "from-timestamp", "namespace", "dedupe", "dlq", "limits"}),
    NodeClient("node", {"first", "retry", "dead-letters", "priority", "deletion", "from-timestamp", "namespace", "dedupe",
                        "limits"}),
    CppClient("cpp", {"auto-create", "oneway", "orderly", "share-ordered", "pull", "retry", "priority"}),
)}
ADMIN, ALL = "mqadmin", "all"  # names of what is no single client
