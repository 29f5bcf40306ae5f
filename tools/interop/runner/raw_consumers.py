"""Bad input in what consumers and tools ask for: filters, pulls, offsets, resets, queries, topics."""
import json
import re
import struct
import time

from . import remoting
from .context import check
from .raw import (BY_TIME, CHECK_CLIENT, CLONE, COMMIT, CONSUME_NOW, EXCEPTION, FAQ, NOWHERE, OFFSET, OUR_FIELD, PULL, QUERY,
                  RESET, RUNNING_INFO, STATUS, UPDATE_TOPIC, VIEW, Raw, case, now_ms)

SYNTAX = "org.apache.rocketmq.filter.parser.ParseException: "
WANTED = "\nWas expecting one of:\n    "
OPERAND = WANTED + "".join(token + " ...\n    " for token in (
    '"NOT"', '"TRUE"', '"FALSE"', '"NULL"', "<DECIMAL_LITERAL>", "<FLOATING_POINT_LITERAL>", "<STRING_LITERAL>", "<ID>",
    '"("', '"-"', '"+"'))
REST = WANTED + "".join(token + " ...\n    " for token in (
    '"NOT"', '"AND"', '"OR"', '"BETWEEN"', '"IN"', '"IS"', '"CONTAINS"', '"STARTSWITH"', '"ENDSWITH"', '"="', '"<>"', '">"',
    '">="', '"<"', '"<="', '")"'))
COMPARED = "java.lang.RuntimeException: %s cannot be compared."
BAD_SQL = {
    "": SYNTAX + 'Encountered "<EOF>" at line 0, column 0.' + OPERAND,
    "a >": SYNTAX + 'Encountered "<EOF>" at line 1, column 3.' + OPERAND,
    "(a = 1": SYNTAX + 'Encountered "<EOF>" at line 1, column 6.' + REST,
    "a IN ()": SYNTAX + 'Encountered " ")" ") "" at line 1, column 7.\nWas expecting:\n    <STRING_LITERAL> ...\n    ',
    "a = 'x": "org.apache.rocketmq.filter.parser.TokenMgrError: Lexical error at line 1, column 7.  Encountered: <EOF> "
              "after : \"\\'x\"",
    "a = NULL": COMPARED % "'NULL'",
    "a > 'x'": COMPARED % "Value ''x''",
    "a BETWEEN 5 AND 1": "java.lang.RuntimeException: Illegal values of between, left value(5) must less than or equal to "
                         "right value(1)",
    "5 IN ('a')": "java.lang.RuntimeException: Expected a property for In expression, got: 5",
    "a = 99999999999999999999": 'java.lang.NumberFormatException: For input string: "99999999999999999999"',
}
STORE_TIME = 56  # where it stands in a stored record
NO_SUBSCRIPTION = (23, "parse the consumer's subscription failed")


@case("bad-filters")
def bad_filters(t):
    """SQL92 that is none, of wrong types, too deep or too long: by the check (46) and by pulls."""
    raw = Raw(t)

    def checked(expression, kind="SQL92"):
        data = {"topic": raw.topic, "subString": expression, "expressionType": kind, "subVersion": 1, "tagsSet": [],
                "codeSet": [], "classFilterMode": False}
        body = {"clientId": "c", "group": raw.group, "namespace": "", "subscriptionData": data}
        return raw.ask(CHECK_CLIENT, {}, json.dumps(body).encode())

    # As Java's parser has it, what stands behind a whole expression is not looked at.
    for expression in ("a > 1", "1 = 1", "a CONTAINS ''", "a LIKE 'x'", "a + 1 > 2", "(" * 100 + "a = 1" + ")" * 100):
        raw.alike(expression, checked(expression), 0)
    for expression, remark in BAD_SQL.items():
        raw.alike(expression, checked(expression), 23, remark)
    raw.alike("a tag that would be no SQL92", checked("a >", "TAG"), 0)
    deep, long = "(" * 300 + "a = 1" + ")" * 300, " OR ".join(["a = 12345"] * 9000)
    raw.differs("deep", checked(deep), (23, "the filter expression is nested deeper than 256 levels, the limit"), (0, ""))
    raw.differs("long", checked(long), (23, "the filter expression has %d bytes, the limit is 65536" % len(long)), (0, ""))
    raw.differs("deeper than any stack", checked("(" * 30_000 + "a = 1"), (23, re.compile("the filter expression .*limit")),
                (23, "java.lang.StackOverflowError"))
    raw.differs("another type", checked("a", "LUA"),
                (1, "The broker does not support consumer to filter message by LUA"), (23, EXCEPTION))
    raw.stored()
    for expression in ("a >", deep):
        by_pull = pull(raw, subscription=expression, expressionType="SQL92")
        raw.differs("a pull by " + expression, by_pull, NO_SUBSCRIPTION, (by_pull[0], re.compile("FOUND|NO_MATCHED_MESSAGE")))


def pull(raw, ask=None, **changed):
    return raw.ask(PULL, {"consumerGroup": raw.group, "topic": raw.topic, "queueId": 0, "queueOffset": 0, "maxMsgNums": 32,
                          "sysFlag": 4, "commitOffset": 0, "suspendTimeoutMillis": 0, "subVersion": 0,
                          "subscription": "*", "expressionType": "TAG", **changed}, connection=ask)


@case("bad-pulls")
def bad_pulls(t):
    """Queues, topics, offsets and subscriptions that are not there."""
    raw = Raw(t)
    raw.stored()
    for queue in (9, -1):
        raw.alike("queue %d" % queue, pull(raw, queueId=queue), 29, re.compile(
            r"queueId\[%d\] is illegal, topic:\[%s\] topicConfig.readQueueNums:\[4\] consumer:\[/127\.0\.0\.1:\d+\]"
            % (queue, re.escape(raw.topic))))
    raw.alike("no such topic", pull(raw, topic="none"), 17, "topic[none] not exist, apply first please! " + FAQ)
    raw.alike("a group's name that is none", pull(raw, consumerGroup=""), 26, "subscription group [] does not exist, " + FAQ)
    raw.alike("a group that subscribes to nothing", pull(raw, consumerGroup=raw.group + "-new", sysFlag=0), 24,
              "the consumer's group info not exist" + FAQ)
    for what, offset, code, remark in (("beyond the end", 999, 21, "OFFSET_OVERFLOW_BADLY"),
                                       ("the end", 1, 19, "OFFSET_OVERFLOW_ONE"),
                                       ("before the beginning", -1, 21, "OFFSET_TOO_SMALL")):
        raw.alike(what, pull(raw, queueOffset=offset), code, remark)
    for name in ("queueOffset", "queueId"):
        raw.differs(name + " is no number", pull(raw, **{name: "x"}), (1, OUR_FIELD), (1, EXCEPTION))


@case("broadcast-offsets")
def broadcast_offsets(t):
    """A client of a broadcasting group that moves between a proxy and the broker itself goes on where it was."""
    raw = Raw(t)
    for _ in range(5):
        raw.stored()

    def proxied(client, offset):
        return pull(raw, queueOffset=offset, requestSource=1, proxyFrowardClientId=client)

    def sent_to(what, answer, offset):
        raw.alike(what, answer, 21, "OFFSET_RESET")
        check(answer[2].get("nextBeginOffset") == str(offset), "%s: %s" % (what, answer))

    sent_to("a proxy that does not know where to begin", proxied("n@b", -1), 0)
    raw.alike("from there on", proxied("n@b", 2), 0, "FOUND")
    with remoting.Connection(raw.address) as connection:
        heartbeat = raw.heartbeat("c@b", messageModel="BROADCASTING")
        raw.alike("a heartbeat", (connection.call(34, body=heartbeat)[0], ""), 0)

        def direct(offset):
            return pull(raw, queueOffset=offset, ask=connection)

        raw.alike("a member", direct(3), 0, "FOUND")
        raw.alike("it is right whatever it says", direct(1), 0, "FOUND")
        sent_to("the same through a proxy", proxied("c@b", 0), 3)
        raw.alike("it goes on", proxied("c@b", 4), 0, "FOUND")
        sent_to("back at the broker", direct(0), 4)
        raw.alike("it goes on there", direct(4), 0, "FOUND")
        place = {"consumerGroup": raw.group + "@broadcast", "topic": raw.topic, "queueId": 0, "setZeroIfNotFound": "false"}
        t.until(lambda: raw.ask(OFFSET, place)[2].get("offset") == "2", "the least offset is committed")
    sent_to("a client that nothing is known of", proxied("x@b", -1), 2)


@case("bad-offsets")
def bad_offsets(t):
    """Committed offsets of groups, topics and queues that are not there, or beyond what is."""
    raw = Raw(t)
    raw.stored()
    place = {"consumerGroup": raw.group, "topic": raw.topic, "queueId": 0}
    strict = {**place, "setZeroIfNotFound": "false"}
    not_there = "Not found, do not set to zero, maybe this group boot first"
    raw.alike("none is committed", raw.ask(OFFSET, strict), 22, not_there)
    raw.alike("none is committed in a young queue", raw.ask(OFFSET, place), 0)
    raw.alike("no such group", raw.ask(OFFSET, {**strict, "consumerGroup": "none"}), 22, not_there)
    raw.alike("no such topic", raw.ask(OFFSET, {**strict, "topic": "none"}), 22, not_there)
    empty = raw.ask(OFFSET, {**place, "queueId": 3})
    raw.differs("none is committed in an empty queue", empty, (0, ""),
                (22, "Not found, V3_0_6_SNAPSHOT maybe this group consumer boot first"))

    def commit(**changed):
        return raw.ask(COMMIT, {**place, "commitOffset": 1, **changed})

    raw.alike("a commit of no such group", commit(consumerGroup="none"), 26, "Group none not exist!")
    raw.alike("a commit in no such topic", commit(topic="none"), 17, "Topic none not exist!")
    for what, changed in (("beyond the queues", {"queueId": 99}), ("negative", {"commitOffset": -7}),
                          ("beyond the end", {"commitOffset": 99999})):
        raw.alike("a commit " + what, commit(**changed), 0)
    same = raw.ask(OFFSET, place)
    check(same[2].get("offset") == "99999", "what is committed is given back: %s" % (same,))


@case("bad-resets")
def bad_resets(t):
    """Resets (222), clones (314) and questions to consumers (223, 307, 309) about what is not there."""
    raw = Raw(t)
    raw.stored()

    def reset(**changed):
        return raw.ask(RESET, {"topic": raw.topic, "group": raw.group, "timestamp": 0, "isForce": "true", **changed})

    raw.alike("no such topic", reset(topic="none"), 17, "Topic none does not exist")
    raw.alike("no such group", reset(group="none"), 26, "Group none does not exist")
    for offset in (99, -5, 3):
        raw.alike("offset %d" % offset, reset(queueId=0, offset=offset), 1,
                  "Target offset %d not in consume queue range [0-1]" % offset)
    for offset in (0, 1, 2):
        raw.alike("offset %d" % offset, reset(queueId=0, offset=offset), 0)
    pending = raw.ask(COMMIT, {"consumerGroup": raw.group, "topic": raw.topic, "queueId": 0, "commitOffset": 1})
    raw.alike("a commit after it", pending, 0, "Offset has been previously reset")
    moved = pull(raw)
    raw.alike("the pull after it", moved, 21, re.compile(".*"))
    check(moved[2]["nextBeginOffset"] == "2", "where the pull is sent: %s" % (moved[2],))
    raw.alike("the pull after that", pull(raw), 0, "FOUND")
    raw.differs("a queue that is none", reset(queueId=99, offset=0), (1, "topic %s has no queue 99" % raw.topic), (0, ""))
    raw.differs("a time that is none", reset(timestamp="x"), (1, OUR_FIELD), (0, ""))
    clone = {"srcGroup": "none", "destGroup": raw.group, "topic": raw.topic, "offline": "true"}
    raw.alike("a clone of nothing", raw.ask(CLONE, clone), 0)
    raw.differs("223: nobody is online", raw.ask(STATUS, {"topic": raw.topic, "group": raw.group}),
                (1, "No Any Consumer online in the consumer group: [%s]" % raw.group), (1, EXCEPTION))
    offline = "The Consumer <%s> <c1> not online" % raw.group
    asked = {"consumerGroup": raw.group, "clientId": "c1"}
    raw.alike("307: who is not online", raw.ask(RUNNING_INFO, {**asked, "jstackEnable": "false"}), 1, offline)
    raw.alike("309: who is not online", raw.ask(CONSUME_NOW, {**asked, "msgId": "7F00000100002A9F0000000000000000"}), 1, offline)
    raw.differs("309: an id that is none", raw.ask(CONSUME_NOW, {**asked, "msgId": "zz"}),
                (1, "msgId [zz] is no offset message id"), (1, EXCEPTION))


@case("by-time")
def by_time(t):
    """Offsets by time (29), at each boundary of stretches of messages with the same store time."""
    raw = Raw(t)
    for n in range(12):
        raw.stored(body=b"%d" % n)
        if n % 4 == 3:
            time.sleep(0.02)
    records, times = pull(raw)[3], []
    while records:
        size, = struct.unpack(">I", records[:4])
        times.append(struct.unpack(">q", records[STORE_TIME:STORE_TIME + 8])[0])
        records = records[size:]
    check(len(times) == 12 and times == sorted(times), "store times: %s" % times)

    def found(at, **changed):
        answer = raw.ask(BY_TIME, {"topic": raw.topic, "queueId": 0, "timestamp": at, **changed})
        raw.alike("%s %s" % (at, changed), answer, 0)
        return int(answer[2]["offset"])

    for at in sorted({near for stored in times for near in (stored - 1, stored, stored + 1)}):
        first = sum(stored < at for stored in times)  # the first that is not before `at`, or the end
        last = max(sum(stored <= at for stored in times) - 1, 0)  # the last that is not after it
        for name, expected in ((None, first), ("LOWER", first), ("lower", first), ("UPPER", last), ("upper", last),
                               ("nonsense", first)):
            offset = found(at, boundaryType=name)
            check(offset == expected, "%s of %s: offset %d, not %d" % (name, [at - times[0], times], offset, expected))
    for where in ({"queueId": 3}, {"queueId": 99}, {"topic": "none"}):
        check(found(times[0], **where) == 0, "of nothing: %s" % where)


@case("bad-queries")
def bad_queries(t):
    """Keys (12) and physical offsets (33) of nothing; ends of queues (30 to 32) that are not there."""
    raw = Raw(t)
    place, _, _ = raw.stored()
    none = "can not find message, maybe time range not correct"

    def query(**changed):
        return raw.ask(QUERY, {"topic": raw.topic, "key": "k", "maxNum": 32, "beginTimestamp": 0,
                               "endTimestamp": now_ms() + 10**6, **changed})

    for what, changed in (("no such key", {}), ("no such topic", {"topic": "none"}), ("no key", {"key": ""}),
                          ("none wanted", {"maxNum": 0}), ("backwards", {"beginTimestamp": now_ms(), "endTimestamp": 0})):
        raw.alike(what, query(**changed), 22, none)
    raw.differs("less than none wanted", query(maxNum=-1), (22, none), (1, EXCEPTION))
    for offset in (NOWHERE, -1, place + 1):
        raw.alike("33 of %d" % offset, raw.ask(VIEW, {"offset": offset}), 1, "can not find message by the offset, %d" % offset)
    raw.differs("33 of text", raw.ask(VIEW, {"offset": "x"}), (1, OUR_FIELD), (1, EXCEPTION))
    for code, name, value in ((30, "offset", "0"), (31, "offset", "0"), (32, "timestamp", "-1")):
        for topic, queue in (("none", 0), (raw.topic, 99), (raw.topic, 3)):
            answer = raw.ask(code, {"topic": topic, "queueId": queue})
            raw.alike("%d of %s %d" % (code, topic, queue), answer, 0)
            check(answer[2].get(name) == value, "%d of %s %d: %s" % (code, topic, queue, answer[2]))


@case("bad-topics")
def bad_topics(t):
    """Names, attributes and numbers that no topic or group may have."""
    raw = Raw(t)
    done = re.compile("(not set any response code)?")

    def alter(attributes=None, **changed):
        return raw.ask(UPDATE_TOPIC, {"topic": raw.topic, "defaultTopic": "TBW102", "readQueueNums": 4, "writeQueueNums": 4,
                                      "perm": 6, "topicFilterType": "SINGLE_TAG", "topicSysFlag": 0, "order": "false",
                                      "attributes": attributes, **changed})

    for attributes, remark in (("+no.such=1", "unsupported key: no.such"),
                               ("-message.type=DELAY", "add/alter attribute format is wrong: -message.type"),
                               ("message.type=DELAY", "add/alter attribute format is wrong: message.type"),
                               ("+message.type", "delete attribute format is wrong: +message.type"),
                               ("+message.type=FIFO,+message.type=DELAY", "key duplication: +message.type"),
                               ("+queue.type=BatchCQ", "attempt to update an unchangeable attribute. key: queue.type"),
                               ("+message.type=NONSENSE", re.compile(r"value is not in set: \[UNSPECIFIED, .*\]"))):
        raw.alike(attributes, alter(attributes), 1, remark)
    raw.alike("MIXED", alter("+message.type=MIXED"), 29, "MIXED message type is not supported.")
    for attributes in ("+message.type=FIFO", "-message.type"):
        raw.alike(attributes, alter(attributes), 0, done)
    for kind, code, limit, fields in (("topic", UPDATE_TOPIC, 127, None), ("group", 200, 120, {})):
        for name, remark in (("", "The specified %s is blank." % kind),
                             ("a b", "The specified %s: a b, contains illegal characters, allowing only ^[%%|a-zA-Z0-9_-]+$"
                              % kind),
                             ("t" * 130, "The specified %s: %s, is longer than %s max length: %d"
                              % (kind, "t" * 130, kind, limit))):
            answer = alter(topic=name) if fields is None else raw.ask(code, {}, json.dumps({"groupName": name}).encode())
            raw.alike("%s %r" % (kind, name), answer, 29, remark)
    raw.alike("a system topic", alter(topic="TBW102"), 29, "The topic[TBW102] is conflict with system topic.")
    raw.differs("a filter type", alter(topicFilterType="X"), (1, "topicFilterType = [X] value invalid"), (1, EXCEPTION))
    raw.differs("a permission", alter(perm="x"), (1, OUR_FIELD), (1, EXCEPTION))
    for queues in (-1, 65_537):
        raw.differs("%d queues" % queues, alter(topic=raw.topic + "-q", readQueueNums=queues), (29, re.compile(".*65536.*")),
                    (0, done))
