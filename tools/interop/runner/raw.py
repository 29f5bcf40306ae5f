"""Requests as raw frames, which no client sends: RingMQ and the Java broker answer with the same code and remark.

Where they differ on purpose, each side's answer stands here, and docs/compatibility.md tells why. Texts are compared as
they are; what is compiled is a pattern.
"""
import functools
import json
import re
import time

from . import remoting
from .context import check

RAW = "raw"  # the name that these cases go by, as if they were a client's
CASES = []
FAQ = "\nSee https://rocketmq.apache.org/docs/bestPractice/06FAQ for further details."
ILLEGAL = ("the message is illegal, maybe msg body or properties length not matched. msg body length limit 4194304B, "
           "msg properties length limit 32KB.")
TOO_FAR = ("timer message illegal, the delay time should not be bigger than the max delay 259200000ms; or if set del msg, "
           "the delay time should be bigger than the current time")
EXCEPTION = re.compile(r"(java|com|org)\..*|Cannot invoke .*", re.DOTALL)  # a Java exception's text, often with its place
OUR_FIELD = re.compile("the custom field <.*")
SEND, PULL, QUERY, OFFSET, COMMIT, UPDATE_TOPIC, BY_TIME, VIEW = 10, 11, 12, 14, 15, 17, 29, 33
SEND_BACK, END, CHECK_CLIENT, RESET, STATUS, RUNNING_INFO, CONSUME_NOW, CLONE = 36, 37, 46, 222, 223, 307, 309, 314
BATCH, REPLY, RECALL = 320, 324, 370
SEND_FIELDS = ("producerGroup", "topic", "defaultTopic", "defaultTopicQueueNums", "queueId", "sysFlag", "bornTimestamp",
               "flag", "properties", "reconsumeTimes", "unitMode", "maxReconsumeTimes", "batch")  # V2: a, b, c, …
MAX_BODY, DAY_MS = 4 << 20, 86_400_000
NOWHERE = 999_999_999_999  # a physical offset without a message


def case(name):
    def register(function):
        CASES.append((name, function))
        return function
    return register


def properties(**given):
    return "".join("%s\x01%s\x02" % item for item in given.items())


def now_ms():
    return int(time.time() * 1000)


class Raw:
    """A topic, a group, and requests about them to the first broker."""

    def __init__(self, t):
        self.t = t
        t.create_topic(brokers=t.cluster.names[:1])
        self.broker = t.cluster.names[0]
        self.address = t.cluster.addresses()[self.broker]
        self.topic, self.group = t.topic, t.group
        remoting.expect_success(self.address, 200, body=json.dumps({"groupName": self.group}).encode())

    def ask(self, code, fields, body=b"", connection=None):
        """(code, remark, fields, body) of a request's answer, on a connection of its own if none is given; fields that are
        None are left out."""
        given = {name: str(value) for name, value in fields.items() if value is not None}
        asked = connection.call if connection else functools.partial(remoting.call, self.address)
        status, header, answer = asked(code, given, body)
        return status, header.get("remark") or "", header.get("extFields") or {}, answer

    def heartbeat(self, client, **changed):
        """The body of a client's heartbeat: a push consumer of the group, of one topic; what is given changes that."""
        topic = changed.pop("topic", self.topic)
        data = {"topic": topic, "subString": "*", "expressionType": "TAG", "tagsSet": [], "codeSet": [], "subVersion": 1,
                "classFilterMode": False}
        consumer = {"groupName": self.group, "consumeType": "CONSUME_PASSIVELY", "messageModel": "CLUSTERING",
                    "consumeFromWhere": "CONSUME_FROM_FIRST_OFFSET", "unitMode": False, "subscriptionDataSet": [data], **changed}
        return json.dumps({"clientID": client, "producerDataSet": [], "consumerDataSet": [consumer]}).encode()

    def alike(self, what, answer, code, remark=""):
        status, text = answer[:2]
        same = remark.fullmatch(text) if isinstance(remark, re.Pattern) else text == remark
        check(status == code and same, "%s: %d %r, but expected %d %r" % (what, status, text, code, remark))

    def differs(self, what, answer, ringmq, java):
        self.alike(what, answer, *(ringmq if self.t.suite.peer == "ringmq" else java))

    def send(self, text="", body=b"x", code=SEND, **changed):
        fields = {"producerGroup": "P", "topic": self.topic, "defaultTopic": "TBW102", "defaultTopicQueueNums": 4,
                  "queueId": 0, "sysFlag": 0, "bornTimestamp": now_ms(), "flag": 0, "properties": text,
                  "reconsumeTimes": 0, "unitMode": "false", **changed}
        if code == BATCH:
            fields["batch"] = "true"
            fields = {"abcdefghijklm"[SEND_FIELDS.index(name)]: value for name, value in fields.items()}
        return self.ask(code, fields, body)

    def stored(self, *text, **changed):
        """(physical offset, queue offset, offset message id) of a message that is sent, once it can be read: a Java broker
        puts it into its queue a moment after the answer. (A half message is in another topic's queue.)"""
        status, remark, fields, _ = self.send(*text, **changed)
        check(status == 0, "the message is not stored: %d %s" % (status, remark))
        if "sysFlag" not in changed:
            self.t.until(lambda: remoting.max_offset(self.address, self.topic, 0) > int(fields["queueOffset"]), "the message")
        return int(fields["msgId"][16:], 16), int(fields["queueOffset"]), fields["msgId"]
