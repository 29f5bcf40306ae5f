'use strict';

// A push consumer that prints what it gets, and fails the first --failures deliveries of each message, until its
// standard input ends.

const { Consumer } = require('ali-ons');
const { event, options, endOfInput, main } = require('./client');

main(async a => {
  const consumer = new Consumer({
    ...options(a),
    consumerGroup: a.group,
    isBroadcast: a.model === 'broadcasting',
    consumeFromWhere: a.from === 'last' ? 'CONSUME_FROM_LAST_OFFSET' : 'CONSUME_FROM_FIRST_OFFSET',
    maxReconsumeTimes: Number(a['max-reconsume'] || 16),
    rebalanceInterval: 1000, // this client does not listen to the broker's "members changed"
  });
  consumer.on('error', err => console.error(err.message));
  // What was sent back comes without its queue.
  consumer.subscribe(a.topic, a.tags || '*', async (m, queue) => {
    event('message', { topic: m.topic, body: m.body.toString(), tag: m.tags, keys: m.keys, color: m.properties.color,
      id: m.properties.UNIQ_KEY || m.msgId, broker: queue && queue.brokerName, queue: Number(m.queueId), offset: Number(m.queueOffset),
      born: Number(m.bornTimestamp), due: m.properties.TIMER_DELIVER_MS, now: Date.now() });
    if (m.reconsumeTimes < Number(a.failures || 0)) {
      throw new Error('to be retried');
    }
  });
  await consumer.ready();
  event('ready');
  await endOfInput();
  await consumer.close();
  event('stopped');
});
