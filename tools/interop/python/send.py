"""Sends --count messages (0: until standard input ends) as --mode sync, async, oneway or batch."""
import threading
import time

from rocketmq.client import Message, Producer

import scenario

QUEUES = 12  # of a topic on three brokers


def make(a, n):
    body = "%s-%05d" % (a.get("prefix", "m"), n)
    m = Message(a["topic"])
    m.set_keys("key-" + body)
    size = int(a.get("size", 0))
    body += "".join(chr(97 + (i * 7 + n) % 26) for i in range(len(body), size))
    tags = a.get("tags", "").split(",")
    if tags[n % len(tags)]:
        m.set_tags(tags[n % len(tags)])
    m.set_property("color", "blågrønn 青")
    if "delay-level" in a:
        m.set_delay_time_level(int(a["delay-level"]))
    if "delay-ms" in a:  # the client has no call for it, its users set the property
        m.set_property("TIMER_DELIVER_MS", str(int(time.time() * 1000) + int(a["delay-ms"])))
    if "priorities" in a:  # the same
        m.set_property("_SYS_MSG_PRIORITY_", str(n % int(a["priorities"])))
    m.set_body(body)
    return body, m


def sent(n, body, result):
    scenario.event("sent", n=n, body=body, id=result.msg_id, status="SEND_" + result.status.name, offset=result.offset)


def send_one(producer, a, n):
    body, m = make(a, n)
    keys = int(a.get("sharding", 0))
    try:
        if a.get("mode") == "oneway":
            producer.send_oneway(m)
            scenario.event("sent", n=n, body=body)
        elif keys:
            sent(n, body, producer.send_orderly(m, n % keys))
        else:
            sent(n, body, producer.send_sync(m))
    except Exception as error:  # the binding has one exception class for each call
        scenario.event("failed", n=n, body=body, error=repr(error))


def send_one_by_one(producer, a):
    count = int(a.get("count", 1))
    stopped = threading.Event()
    if count == 0:
        threading.Thread(target=lambda: (scenario.wait_for_end_of_input(), stopped.set()), daemon=True).start()
    n = 0
    while n < count if count else not stopped.is_set():
        send_one(producer, a, n)
        time.sleep(int(a.get("interval", 0)) / 1000)
        n += 1


def send_async(producer, a):
    count = int(a["count"])
    answered = threading.Semaphore(0)
    for n in range(count):
        body, m = make(a, n)

        def succeeded(result, n=n, body=body):
            sent(n, body, result)
            answered.release()

        def failed(error, n=n, body=body):
            scenario.event("failed", n=n, body=body, error=repr(error))
            answered.release()

        producer.send_async(m, succeeded, failed)
    for _ in range(count):
        answered.acquire()


def send_batch(producer, a):
    made = [make(a, n) for n in range(int(a["count"]))]
    result = producer.send_batch([m for _, m in made])
    for n, (body, _) in enumerate(made):
        scenario.event("sent", n=n, body=body, offset=result.offset + n, status="SEND_" + result.status.name)


def connect(producer, topic):
    """The library's heartbeat and the first send to a broker race for the connection, and a send that loses fails at
    once (or, as oneway, silently): messages that no check looks at go first, until a round over all queues succeeds."""
    succeeded = 0
    for _ in range(100):
        m = Message(topic)
        m.set_body("warm-up")
        try:
            producer.send_sync(m)
            succeeded += 1
        except Exception:  # the binding has one exception class for each call
            succeeded = 0
            time.sleep(0.1)
        if succeeded == QUEUES:
            return


def main():
    a = scenario.args()
    producer = Producer(a["group"])
    producer.set_namesrv_addr(a["namesrv"])
    producer.set_timeout(10000)
    producer.start()
    connect(producer, a["topic"])
    scenario.event("ready")
    {"async": send_async, "batch": send_batch}.get(a.get("mode"), send_one_by_one)(producer, a)
    scenario.event("done")
    producer.shutdown()
    scenario.leave()


main()
