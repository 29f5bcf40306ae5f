"""A pull consumer that reads every queue of a topic from its beginning to its end."""
from rocketmq.client import PullConsumer

import scenario


def main():
    a = scenario.args()
    consumer = PullConsumer(a["group"])
    consumer.set_namesrv_addr(a["namesrv"])
    consumer.start()
    scenario.event("ready")
    for m in consumer.pull(a["topic"], a.get("tags", "*")):
        scenario.message(m)
    scenario.event("stopped")
    scenario.leave()


main()
