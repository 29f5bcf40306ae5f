"""Just enough of RocketMQ's remoting protocol for the runner itself: readiness, topics with a fixed number of queues,
and single messages to a chosen queue. What is under test is sent by the real clients, not from here."""
import json
import re
import socket
import struct

SEND_MESSAGE, UPDATE_AND_CREATE_TOPIC, GET_MAX_OFFSET, GET_MIN_OFFSET, DELETE_EXPIRED = 10, 17, 30, 31, 329
PUT_KV, GET_ROUTE, GET_CLUSTER_INFO, UPDATE_NAMESRV_CONFIG = 100, 105, 106, 318
SUCCESS = 0
RESPONSE = 1  # of a header's flag
TIMEOUT = 5.0


class RemotingError(Exception):
    pass


def call(address, code, ext=None, body=b""):
    """One request on a connection of its own; returns (response code, header, body)."""
    with Connection(address) as connection:
        return connection.call(code, ext, body)


class Connection:
    """A connection that a client keeps."""

    def __init__(self, address):
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout=TIMEOUT)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def call(self, code, ext=None, body=b""):
        """One request; returns (response code, header, body). What the broker asks meanwhile is not answered."""
        header = json.dumps({"code": code, "language": "OTHER", "version": 479, "opaque": 1, "flag": 0,
                             "serializeTypeCurrentRPC": "JSON", "extFields": ext or {}}).encode()
        self.socket.sendall(struct.pack(">II", 4 + len(header) + len(body), len(header)) + header + body)
        while True:
            length, header_length = struct.unpack(">II", read(self.socket, 8))
            frame = read(self.socket, length - 4)
            header = json.loads(frame[:header_length & 0xFFFFFF])
            if header["flag"] & RESPONSE:
                return header["code"], header, frame[header_length & 0xFFFFFF:]


def read(connection, size):
    data = b""
    while len(data) < size:
        piece = connection.recv(size - len(data))
        if not piece:
            raise RemotingError("connection closed after %d of %d bytes" % (len(data), size))
        data += piece
    return data


def expect_success(address, code, ext=None, body=b""):
    status, header, body = call(address, code, ext, body)
    if status != SUCCESS:
        raise RemotingError("request %d to %s: code %d, %s" % (code, address, status, header.get("remark")))
    return header, body


def masters(namesrv):
    """{broker name: address} of all brokers that the name server knows."""
    _, body = expect_success(namesrv, GET_CLUSTER_INFO)
    text = body.decode()  # Java writes integer keys without quotes, so this is no JSON for Python
    found = {}
    for broker in re.findall(r'\{[^{}]*"brokerAddrs":\{[^{}]*\}[^{}]*\}', text):
        name, address = re.search(r'"brokerName":"([^"]+)"', broker), re.search(r'"?0"?:"([^"]+)"', broker)
        if name and address:  # while it registers, it may be there without an address
            found[name.group(1)] = address.group(1)
    return found


def route(namesrv, topic):
    """{broker name: number of queues} or {} when the name server does not know the topic."""
    status, _, body = call(namesrv, GET_ROUTE, {"topic": topic, "acceptStandardJsonOnly": "true"})
    if status != SUCCESS:
        return {}
    return {queues["brokerName"]: queues["writeQueueNums"] for queues in json.loads(body)["queueDatas"]}


def flags(namesrv, topic):
    """The flags (topicSysFlag) of a topic at the brokers that have it."""
    status, _, body = call(namesrv, GET_ROUTE, {"topic": topic, "acceptStandardJsonOnly": "true"})
    return {queues["topicSysFlag"] for queues in json.loads(body)["queueDatas"]} if status == SUCCESS else set()


def order_of(namesrv, topic):
    """The order configuration in a topic's route; empty when there is none."""
    status, _, body = call(namesrv, GET_ROUTE, {"topic": topic, "acceptStandardJsonOnly": "true"})
    return (json.loads(body).get("orderTopicConf") or "") if status == SUCCESS else ""


def set_order(namesrv, topic, order):
    """Gives a topic an order configuration, and has the name server put such into routes."""
    expect_success(namesrv, UPDATE_NAMESRV_CONFIG, body=b"orderMessageEnable=true\n")
    expect_success(namesrv, PUT_KV, {"namespace": "ORDER_TOPIC_CONFIG", "key": topic, "value": order})


def create_topic(address, topic, queues, attributes=""):
    """Makes a topic, or changes it; attributes are set and removed as mqadmin's `-a` does: `+name=value,-name`."""
    fields = {"topic": topic, "defaultTopic": "TBW102", "readQueueNums": str(queues), "writeQueueNums": str(queues),
              "perm": "6", "topicFilterType": "SINGLE_TAG", "topicSysFlag": "0", "order": "false"}
    if attributes:
        fields["attributes"] = attributes
    expect_success(address, UPDATE_AND_CREATE_TOPIC, fields)


def send(address, topic, queue, text):
    expect_success(address, SEND_MESSAGE, {
        "producerGroup": "interop-runner", "topic": topic, "defaultTopic": "TBW102", "defaultTopicQueueNums": "4",
        "queueId": str(queue), "sysFlag": "0", "bornTimestamp": "0", "flag": "0", "properties": "",
        "reconsumeTimes": "0", "unitMode": "false"}, text.encode())


def max_offset(address, topic, queue):
    return bound(address, GET_MAX_OFFSET, topic, queue)


def min_offset(address, topic, queue):
    return bound(address, GET_MIN_OFFSET, topic, queue)


def bound(address, code, topic, queue):
    header, _ = expect_success(address, code, {"topic": topic, "queueId": str(queue)})
    return int(header["extFields"]["offset"])
