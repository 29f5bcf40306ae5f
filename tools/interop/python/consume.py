"""A push consumer, concurrent or orderly, that prints what it gets until its standard input ends."""
from rocketmq.client import PushConsumer, RecvMessage
from rocketmq.exceptions import ffi_check
from rocketmq.ffi import MessageModel, dll

import scenario

SUCCESS, RECONSUME_LATER = 0, 1


class Consumer(PushConsumer):
    """The binding's own `subscribe` tells the library nothing but success: a verdict is given to it here."""

    def listen(self, topic, tags, listener):
        ffi_check(dll.Subscribe(self._handle, topic.encode(), tags.encode()))
        self._register_callback(lambda _, message: listener(RecvMessage(message)))


def main():
    a = scenario.args()
    failures = int(a.get("failures", 0))
    model = MessageModel.BROADCASTING if a.get("model") == "broadcasting" else MessageModel.CLUSTERING
    consumer = Consumer(a["group"], orderly=a.get("order") == "orderly", message_model=model)
    consumer.set_namesrv_addr(a["namesrv"])
    consumer.set_instance_name(a["instance"])

    def consume(message):
        scenario.message(message)
        return RECONSUME_LATER if message.reconsume_times < failures else SUCCESS

    consumer.listen(a["topic"], a.get("tags", "*"), consume)
    consumer.start()
    scenario.event("ready")
    scenario.wait_for_end_of_input()
    consumer.shutdown()
    scenario.event("stopped")
    scenario.leave()


main()
