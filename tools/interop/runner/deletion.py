"""Consumers whose messages are deleted, because their time is over."""
import time

from . import remoting
from .cases import case
from .context import check, check_once

BY_TIME = 29
FILLERS, LARGEST = 24, "x" * (4 << 20)  # more than a Java broker's file, or than what `retention-size` leaves


def delete_all(t, broker):
    """Has the broker delete what the case's topic has, and waits until the queues begin behind it: by the topic's
    attribute; or, if the suite runs for it, whole files."""
    address = t.cluster.addresses()[broker]

    def is_deleted():
        if t.suite.peer != "ringmq":  # on demand, every file goes but the last
            remoting.call(address, remoting.DELETE_EXPIRED)
        return all(remoting.min_offset(address, t.topic, queue) == remoting.max_offset(address, t.topic, queue) > 0
                   for _, queue in t.queues())

    if t.suite.deletes_files():
        remoting.create_topic(address, t.topic + "-filler", 4)
        for n in range(FILLERS):
            remoting.send(address, t.topic + "-filler", n % 4, LARGEST)
        t.until(is_deleted, "the deletion")
    else:
        t.create_topic(brokers=[broker], attributes="+reserve.time=0")
        t.until(is_deleted, "the deletion")
        t.create_topic(brokers=[broker], attributes="-reserve.time")
    for _, queue in t.queues():
        check_searches(t, address, queue)


def check_searches(t, address, queue):
    """A search by time leads to where the queue begins."""
    first = str(remoting.min_offset(address, t.topic, queue))
    for moment in (0, int(time.time() * 1000)):
        for boundary in ("lower", "upper"):
            asked = {"topic": t.topic, "queueId": str(queue), "timestamp": str(moment), "boundaryType": boundary}
            header, _ = remoting.expect_success(address, BY_TIME, asked)
            found = header["extFields"]["offset"]
            check(found == first, "at %d (%s) queue %d has %s, and begins at %s" % (moment, boundary, queue, found, first))


def a_moment(t):
    """The next full second, which is then over: consumers are told a moment in seconds."""
    moment = int(time.time()) + 1
    t.quiet(moment + 0.1 - time.time())
    return moment


@case("min-offset", "deletion", waits=True)
def min_offset(t):
    """Behind a deletion a group whose offset is gone goes on at the minimum; a new one begins there, at the end, or at a
    moment, as it asks."""
    broker = t.cluster.names[0]
    t.create_topic(brokers=[broker])
    read = t.send(count=20, prefix="read")
    behind = t.consumer(group=t.group + "-behind")
    t.until_consumed(read, behind)
    behind.stop()
    check_once(read, behind)
    t.send(count=20, prefix="gone")
    delete_all(t, broker)
    on_empty = t.consumer(group=t.group + "-on-empty", **{"from": "first"})
    kept = t.send(count=20, prefix="kept")
    moment = a_moment(t)
    late = t.send(count=20, prefix="late")
    behind = t.consumer(group=t.group + "-behind")
    first = t.consumer(group=t.group + "-first", **{"from": "first"})
    since = t.consumer(group=t.group + "-since", since=moment, **{"from": "timestamp"})
    last = t.consumer(group=t.group + "-last", **{"from": "last"})
    t.until_on_all_queues(last)
    live = t.send(count=20, prefix="live")
    expected = {on_empty: kept + late + live, behind: kept + late + live, first: kept + late + live, since: late + live,
                last: live}
    for consumer, messages in expected.items():
        t.until_consumed(messages, consumer)
    t.quiet(0.5)
    for consumer, messages in expected.items():
        check_once(messages, consumer)
