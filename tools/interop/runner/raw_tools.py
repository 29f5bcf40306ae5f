"""What tools ask for, by raw requests: messages by key, entries of queues, units."""
import json
import struct

from . import remoting
from .context import check
from .raw import QUERY, Raw, case, now_ms, properties

QUERY_QUEUE = 321
UNIT_TOPICS, UNIT_SUBSCRIBED, UNIT_SUBSCRIBED_PLAIN = 311, 312, 313
STORE_TIME, BODY = 56, 88  # places in a stored record of IPv4 hosts: the length of the body stands before it


def stored_records(body):
    """(store time, body) of each record."""
    found = []
    while body:
        size, = struct.unpack(">I", body[:4])
        length, = struct.unpack(">I", body[BODY - 4:BODY])
        found.append((struct.unpack(">q", body[STORE_TIME:STORE_TIME + 8])[0], body[BODY:BODY + length].decode()))
        body = body[size:]
    return found


@case("key-queries")
def key_queries(t):
    """Messages by KEYS and by UNIQ_KEY (12): how many at most, which, and within which time."""
    raw = Raw(t)
    for n in range(70):
        raw.stored(properties(KEYS="shared own-%d" % n, UNIQ_KEY="unique-%d" % n), body=b"%d" % n)

    def query(key, count=32, begin=0, end=None, **more):
        answer = raw.ask(QUERY, {"topic": raw.topic, "key": key, "maxNum": count, "beginTimestamp": begin,
                                 "endTimestamp": end or now_ms() + 10**6, **more})
        check(answer[0] in (0, 22), "query of %s: %s" % (key, answer[:2]))
        return sorted(stored_records(answer[3]), key=lambda record: int(record[1]))

    def bodies(*arguments, **named):
        return [body for _, body in query(*arguments, **named)]

    t.until(lambda: bodies("own-69") == ["69"], "the key index")
    newest = [str(n) for n in range(70)]
    for count, expected in ((1, newest[-1:]), (32, newest[-32:]), (64, newest[-64:]), (200, newest[-64:])):
        check(bodies("shared", count) == expected, "%d of shared: %s" % (count, bodies("shared", count)))
    for n in (0, 33):
        check(bodies("own-%d" % n) == [str(n)], "own-%d: %s" % (n, bodies("own-%d" % n)))
        by_id = bodies("unique-%d" % n, 1, _UNIQUE_KEY_QUERY="true")
        check(by_id == [str(n)], "unique-%d: %s" % (n, by_id))
    (at, _), = query("own-33")
    check(bodies("own-33", begin=at - 1000, end=at + 1) == ["33"], "within its own time")  # Java's index knows seconds
    for begin, end in ((at + 5000, at + 10**6), (1, at - 5000)):
        check(bodies("own-33", begin=begin, end=end) == [], "at another time")


@case("queue-entries")
def queue_entries(t):
    """Entries of a queue (321)."""
    raw = Raw(t)
    places = [raw.stored(properties(TAGS="TagA")) for _ in range(3)] + [raw.stored()]

    def entries(**changed):
        fields = {"topic": raw.topic, "queueId": 0, "index": 0, "count": 10, **changed}
        answer = raw.ask(QUERY_QUEUE, fields)
        return answer, json.loads(answer[3]) if answer[3] else {}

    answer, listed = entries()
    check(answer[0] == 0 and (listed["minQueueIndex"], listed["maxQueueIndex"]) == (0, 4), "321: %s" % (answer,))
    found = [(entry["physicOffset"], entry["tagsCode"]) for entry in listed["queueData"]]
    check(found == [(place, 2598919) for place, _, _ in places[:3]] + [(places[3][0], 0)], "entries: %s" % found)
    check(all(100 < entry["physicSize"] < 400 for entry in listed["queueData"]), "sizes: %s" % listed)
    _, some = entries(index=2, count=1)
    check([entry["physicOffset"] for entry in some["queueData"]] == [places[2][0]], "the third: %s" % some)
    answer, offline = entries(consumerGroup=raw.group)
    check(offline.get("filterData") == "%s@%s is not online!" % (raw.group, raw.topic), "offline: %s" % (answer,))
    raw.alike("an entry that is not there", entries(index=99)[0], 0, "Index 99 of 0@%s is not exist!" % raw.topic)


@case("units")
def units(t):
    """Topics of producers and consumers of a unit have its flags, and name servers list them."""
    raw = Raw(t)
    made = raw.topic + "-unit"
    raw.alike("a producer of a unit", raw.send(topic=made, unitMode="true"), 0)
    retry = "%RETRY%" + raw.group + "-unit"
    heartbeat = raw.heartbeat("c@unit", groupName=raw.group + "-unit", topic=made, unitMode=True)
    remoting.call(raw.address, 34, body=heartbeat)  # its answer, or the notification that the group changed

    def flags(topic):
        return remoting.flags(t.cluster.namesrv, topic)

    t.until(lambda: flags(made) == {1} and flags(retry) == {2}, lambda: "the flags: %s %s" % (flags(made), flags(retry)))

    def listed(code):
        return json.loads(remoting.expect_success(t.cluster.namesrv, code)[1])["topicList"]

    check(made in listed(UNIT_TOPICS) and retry not in listed(UNIT_TOPICS), "311")
    check(retry in listed(UNIT_SUBSCRIBED) and made not in listed(UNIT_SUBSCRIBED), "312")
    check(retry in listed(UNIT_SUBSCRIBED_PLAIN) and made not in listed(UNIT_SUBSCRIBED_PLAIN), "313")
