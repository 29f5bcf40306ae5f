"""Bad input in what is sent: sends, batches, delays, recalls, ends of transactions, what is sent back."""
import base64
import re
import struct

from .raw import (BATCH, DAY_MS, END, EXCEPTION, FAQ, ILLEGAL, MAX_BODY, NOWHERE, OUR_FIELD, RECALL, REPLY, SEND_BACK,
                  TOO_FAR, Raw, case, now_ms, properties)

NO_HALF = "Find prepared transaction message failed"


@case("bad-sends")
def bad_sends(t):
    """Queues, topics, sizes and groups that are none, or that may not be used."""
    raw = Raw(t)
    queue = re.compile(r"request queueId\[9\] is illegal, TopicConfig \[topicName=%s, readQueueNums=4, writeQueueNums=4, "
                       r"perm=RW-, .*\] Producer: 127\.0\.0\.1:\d+" % re.escape(raw.topic))
    raw.alike("a queue beyond", raw.send(queueId=9), 29, queue)
    raw.alike("a body beyond the limit", raw.send(body=b"x" * (MAX_BODY + 1)), 13, ILLEGAL)
    raw.alike("properties beyond the limit", raw.send(properties(a="x" * 33000)), 13, ILLEGAL)
    raw.alike("text that is no properties", raw.send("abc"), 0)
    long, bad = "t" * 128, "a b"
    raw.alike("a long topic", raw.send(topic=long), 29,
              "The specified topic: %s, is longer than topic max length: 127" % long)
    raw.alike("a topic with a space", raw.send(topic=bad), 29,
              "The specified topic: %s, contains illegal characters, allowing only ^[%%|a-zA-Z0-9_-]+$" % bad)
    raw.alike("no topic's name", raw.send(topic=""), 29, "The specified topic is blank.")
    raw.alike("a system topic", raw.send(topic="SCHEDULE_TOPIC_XXXX"), 16,
              "Sending message to topic[SCHEDULE_TOPIC_XXXX] is forbidden.")
    raw.alike("a template that is none", raw.send(topic=raw.topic + "-new", defaultTopic="none"), 17,
              "topic[%s-new] not exist, apply first please!%s" % (raw.topic, FAQ))
    raw.alike("the retry topic of a new group", raw.send(topic="%RETRY%" + raw.group + "-new"), 0)
    raw.alike("a reply to nobody", raw.send(properties(MSG_TYPE="reply"), code=REPLY), 1,
              "reply message properties[REPLY_TO_CLIENT] is null")
    raw.alike("a reply to who is gone", raw.send(properties(REPLY_TO_CLIENT="c9"), code=REPLY), 1,
              "push reply message fail, channel of <c9> not found.")
    raw.differs("no body", raw.send(body=b""), (13, ILLEGAL), (1, EXCEPTION))
    raw.differs("no topic", raw.send(topic=None), (1, "the custom field <topic> is null"), (1, EXCEPTION))
    raw.differs("a queue that is no number", raw.send(queueId="x"), (1, OUR_FIELD), (1, EXCEPTION))


@case("bad-delays")
def bad_delays(t):
    """Delay levels and due times that are none, past, or too far."""
    raw = Raw(t)
    for level in ("-3", "0", "", "99"):  # no delay, no delay, no delay, the last level
        raw.alike("level %r" % level, raw.send(properties(DELAY=level)), 0)
    for level in ("x", "2147483648"):
        text = 'java.lang.NumberFormatException: For input string: "%s"' % level
        raw.alike("level %r" % level, raw.send(properties(DELAY=level)), 1, re.compile(re.escape(text) + "(, java.*)?"))
    for name, value in (("TIMER_DELIVER_MS", now_ms() - 1000), ("TIMER_DELIVER_MS", -5), ("TIMER_DELAY_MS", -5)):
        raw.alike("%s %s, in the past" % (name, value), raw.send(properties(**{name: value})), 0)
    for name, value in (("TIMER_DELIVER_MS", now_ms() + 4 * DAY_MS), ("TIMER_DELAY_SEC", 300_000), ("TIMER_DELIVER_MS", "x"),
                        ("TIMER_DELAY_SEC", "x"), ("TIMER_DELIVER_MS", 2**63 - 1)):
        raw.alike("%s %s" % (name, value), raw.send(properties(**{name: value})), 13, TOO_FAR)
    raw.differs("a sum beyond 64 bits", raw.send(properties(TIMER_DELAY_MS=2**63 - 1)), (13, TOO_FAR), (0, ""))
    past = properties(TIMER_DELIVER_MS=now_ms() - 1000, TIMER_DEL_UNIQKEY="T+k")
    raw.alike("a deletion in the past", raw.send(past), 13, TOO_FAR)


@case("bad-recalls")
def bad_recalls(t):
    """Handles that are none, or not of this broker, topic or time."""
    raw = Raw(t)

    def handle(version="v1", topic=raw.topic, broker=raw.broker, at=None, key="k"):
        text = "%s %s %s %s %s" % (version, topic, broker, at or now_ms() + 60_000, key)
        return base64.urlsafe_b64encode(text.encode()).decode()

    def recall(what, remark, of, code=604, topic=raw.topic):
        answer = raw.ask(RECALL, {"producerGroup": "P", "topic": topic, "recallHandle": of})
        raw.alike(what, answer, code, remark)

    for what, text in (("text that is none", "zzz"), ("no handle", None), ("another version", handle(version="v2"))):
        recall(what, "recall handle is invalid", text)
    recall("another topic", "recall failed, topic not match", handle(topic="other"))
    recall("a topic that is not there", "recall failed, the topic[none] not exist", handle(), code=17, topic="none")
    recall("another broker", "recall failed, broker service not available", handle(broker="other"))
    for what, at in (("past", now_ms() - 1), ("far", now_ms() + 4 * DAY_MS), ("no number", "x")):
        recall("a time that is " + what, "recall failed, timestamp invalid", handle(at=at))


@case("bad-ends")
def bad_ends(t):
    """Commits and rollbacks that match no half message, or not all of it."""
    raw = Raw(t)
    place, _, _ = raw.stored()
    half, state, _ = raw.stored(properties(TRAN_MSG="true", PGROUP="P"), sysFlag=4)

    def end(**changed):
        return raw.ask(END, {"topic": raw.topic, "producerGroup": "P", "tranStateTableOffset": state, "msgId": "m",
                             "commitLogOffset": half, "commitOrRollback": 8, "fromTransactionCheck": "false",
                             "transactionId": "m", **changed})

    for what, offset in (("nowhere", NOWHERE), ("negative", -1), ("inside a message", half + 1)):
        for verdict in (8, 12):
            raw.alike("%s, verdict %d" % (what, verdict), end(commitLogOffset=offset, commitOrRollback=verdict), 1, NO_HALF)
    raw.differs("a message that is no half", end(commitLogOffset=place), (1, NO_HALF), (1, EXCEPTION))
    raw.alike("another group", end(producerGroup="Q"), 1, "The producer group wrong")
    raw.alike("another state", end(tranStateTableOffset=12345), 1, "The transaction state table offset wrong")
    raw.differs("no offset", end(commitLogOffset=None), (1, OUR_FIELD), (1, EXCEPTION))
    raw.alike("the half message", end(), 0)


@case("bad-send-backs")
def bad_send_backs(t):
    """Messages that are gone, and levels and groups that are none."""
    raw = Raw(t)
    place, _, message_id = raw.stored()

    def back(**changed):
        return raw.ask(SEND_BACK, {"offset": place, "group": raw.group, "delayLevel": 3, "originMsgId": message_id,
                                   "originTopic": raw.topic, "unitMode": "false", "maxReconsumeTimes": 16, **changed})

    for offset in (NOWHERE, -1, place + 1):
        raw.alike("offset %d" % offset, back(offset=offset), 1, "look message by offset failed, %d" % offset)
    for level in (99, -5, 0):
        raw.alike("level %d" % level, back(delayLevel=level), 0)
    raw.alike("a new group", back(group=raw.group + "-new"), 0)
    for group in ("", "a b"):
        raw.alike("group %r" % group, back(group=group), 26, "subscription group not exist, %s %s" % (group, FAQ))
    raw.differs("no offset", back(offset=None), (1, OUR_FIELD), (1, EXCEPTION))


def one_of_batch(body=b"x", text=b""):
    """A message as it stands in a batch: length, magic, CRC, flag, body, properties."""
    rest = struct.pack(">iiii", 0, 0, 0, len(body)) + body + struct.pack(">h", len(text)) + text
    return struct.pack(">i", 4 + len(rest)) + rest


@case("bad-batches")
def bad_batches(t):
    """Batches that are cut short, too large, or of what cannot be in one."""
    raw = Raw(t)
    two = one_of_batch() * 2

    def batch(text="", body=two, **changed):
        return raw.send(text, body, BATCH, **changed)

    raw.alike("two messages", batch(), 0)
    raw.alike("to a retry topic", batch(topic="%RETRY%" + raw.group), 13,
              "batch request does not support retry group %RETRY%" + raw.group)
    raw.alike("to a long topic", batch(topic="t" * 128), 29,
              "The specified topic: %s, is longer than topic max length: 127" % ("t" * 128))
    raw.alike("a half message", batch(sysFlag=4), 13, ILLEGAL)
    # A record has one topic: what a message says of another is its property and no more.
    raw.alike("a message of another topic", batch(body=one_of_batch(text=b"REAL_TOPIC\x01other\x02")), 0)
    raw.alike("a message with a delay of its own", batch(body=one_of_batch(text=b"DELAY\x013\x02")), 0)
    ours, broken = (13, ILLEGAL), (1, EXCEPTION)
    raw.differs("no message", batch(body=b""), ours, broken)
    for what, body in (("text", b"abc"), ("cut short", two[:-1]), ("of zeros", bytes(30)),
                       ("a negative length", struct.pack(">iiiii", 30, 0, 0, 0, -5) + b"x" * 10)):
        raw.differs(what, batch(body=body), ours, broken)
    for what, body in (("one", one_of_batch(b"x" * MAX_BODY)), ("five", one_of_batch(b"x" * 1_000_000) * 5)):
        raw.differs("%s beyond the limit" % what, batch(body=body), ours, broken)
    raw.differs("a message without a body", batch(body=one_of_batch(b"")), ours, (0, ""))
    raw.differs("a length that is too large", batch(body=struct.pack(">i", 9999) + two[4:]), ours, (0, ""))
    delayed = (13, "a batch of messages cannot be delayed: send them one by one")
    raw.differs("a level", batch(properties(DELAY="3")), delayed, (13, ILLEGAL))
    raw.differs("a timer", batch(properties(TIMER_DELAY_MS="5000")), delayed, (0, ""))
