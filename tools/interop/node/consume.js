'use strict';

// A push consumer that prints what it gets, and fails the first --failures deliveries of each message, until its
// standard input ends.

const { Consumer } = require('ali-ons');
const { event, options, endOfInput, main } = require('./client');

const FROM = { last: 'LAST_OFFSET', timestamp: 'TIMESTAMP' };

/** Seconds since 1970 as this client wants a moment: digits, by the local clock. */
function localTime(seconds) {
  const d = new Date(seconds * 1000);
  const parts = [ d.getMonth() + 1, d.getDate(), d.getHours(), d.getMinutes(), d.getSeconds() ];
  return d.getFullYear() + parts.map(part => String(part).padStart(2, '0')).join('');
}

main(async a => {
  const consumer = new Consumer({
    ...options(a),
    consumerGroup: a.group,
    isBroadcast: a.model === 'broadcasting',
    consumeFromWhere: `CONSUME_FROM_${FROM[a.from] || 'FIRST_OFFSET'}`,
    ...(a.since && { consumeTimestamp: localTime(Number(a.since)) }),
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
