"""A push consumer, concurrent or orderly, that prints what it gets until its standard input ends."""
from rocketmq.client import PushConsumer
from rocketmq.ffi import MessageModel

import scenario


def main():
    a = scenario.args()
    model = MessageModel.BROADCASTING if a.get("model") == "broadcasting" else MessageModel.CLUSTERING
    consumer = PushConsumer(a["group"], orderly=a.get("order") == "orderly", message_model=model)
    consumer.set_namesrv_addr(a["namesrv"])
    consumer.set_instance_name(a["instance"])
    consumer.subscribe(a["topic"], scenario.message, a.get("tags", "*"))
    consumer.start()
    scenario.event("ready")
    scenario.wait_for_end_of_input()
    consumer.shutdown()
    scenario.event("stopped")
    scenario.leave()


main()
