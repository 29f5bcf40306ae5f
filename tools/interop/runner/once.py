"""Messages that are stored once within a window of time, by their DEDUPE_KEY."""
from .cases import case
from .context import check, check_once, got


def place(m):
    return m["broker"], m["queue"], m["offset"], m["offsetId"]


def check_repeats(repeats, originals):
    """Each repeat's answer names the place of its original."""
    for repeat, original in zip(repeats, originals):
        check(place(repeat) == place(original), "%s is at %s, its repeat %s at %s" % (
            original["body"], place(original), repeat["body"], place(repeat)))


def check_places(stored):
    """No two messages have the same place."""
    places = {place(m): m["body"] for m in stored}
    check(len(places) == len(stored), "%d messages at %d places" % (len(stored), len(places)))


@case("dedupe", "dedupe")
def dedupe(t):
    """Of those with one key the first is stored; repeats get its place, also from another producer, until the topic's
    window is over. A Java broker knows no window and stores all."""
    is_java = t.suite.peer != "ringmq"
    broker = t.cluster.names[:1]
    t.create_topic(brokers=broker, attributes="" if is_java else "+dedupe.window=600000")
    sent = [t.send(count=8, dedupe=4, prefix="twice"), t.send(count=6, dedupe=6, prefix="again")]
    stored = sent[0] + sent[1]
    if not is_java:
        stored = sent[0][:4] + sent[1][4:]
        check_repeats(sent[0][4:] + sent[1], sent[0][:4] + sent[0][:4])
        t.create_topic(brokers=broker, attributes="+dedupe.window=1000")
        t.quiet(1.1)
    stored += t.send(count=4, dedupe=4, prefix="later")
    check_places(stored)
    consumer = t.consumer()
    t.until_consumed(stored, consumer)
    t.quiet(0.5)
    check_once(stored, consumer)
    check(len(got(consumer)) == len(stored), "%d messages came" % len(got(consumer)))
