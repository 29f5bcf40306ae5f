"""Cases in which the clients of all languages meet."""
from .clients import CLIENTS
from .context import check, check_once

COUNT = 8


def exchange(t):
    """What each client sends, small and compressed, each client reads."""
    t.create_topic()
    sent = []
    for size in (0, 9000):
        producers = [t.start("send", client=client, group="%s-P-%s" % (t.group, client.name.replace(".", "_")),
                             count=COUNT, size=size, prefix="%s-%d" % (client.name, size))
                     for client in CLIENTS.values()]
        for producer in producers:
            producer.wait_for("done").finish()
            check(len(producer.all("sent")) == COUNT, "%s: %s" % (producer.name, producer.all("failed")[:1]))
            sent += producer.all("sent")
    consumers = [t.start("consume", client=client, group="%s-%s" % (t.group, client.name.replace(".", "_")))
                 for client in CLIENTS.values()]
    for consumer in consumers:
        t.until_consumed(sent, consumer)
    t.quiet(0.5)
    for consumer in consumers:
        check_once(sent, consumer)


CASES = [("exchange", exchange)]
