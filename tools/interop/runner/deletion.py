"""Consumers whose messages are deleted, because their time is over."""
import time

from . import remoting
from .cases import case
from .context import check_once

JAVA_FILE = 64 << 20  # of a Java broker's log, see cluster.py
LARGEST = "x" * (4 << 20)


def delete_all(t, broker):
    """Has the broker delete what the case's topic has, and waits until the queues begin behind it."""
    address = t.cluster.addresses()[broker]

    def is_deleted():
        if t.suite.peer != "ringmq":
            remoting.call(address, remoting.DELETE_EXPIRED)
        return all(remoting.min_offset(address, t.topic, queue) == remoting.max_offset(address, t.topic, queue) > 0
                   for _, queue in t.queues())

    if t.suite.peer == "ringmq":
        t.create_topic(brokers=[broker], attributes="+reserve.time=0")
        t.until(is_deleted, "the deletion")
        t.create_topic(brokers=[broker], attributes="-reserve.time")
    else:  # started with fileReservedTime=0: on demand every file goes but the last
        remoting.create_topic(address, t.topic + "-filler", 1)
        for _ in range(JAVA_FILE // len(LARGEST)):
            remoting.send(address, t.topic + "-filler", 0, LARGEST)
        t.until(is_deleted, "the deletion")


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
