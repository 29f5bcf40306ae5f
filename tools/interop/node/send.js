'use strict';

// Sends --count messages (0: until standard input ends), --mode sync (one by one) or async (all at once).

const { Producer, Message } = require('ali-ons');
const { event, options, endOfInput, main } = require('./client');

function message(a, n) {
  let body = `${a.prefix || 'm'}-${String(n).padStart(5, '0')}`;
  const key = `key-${body}`;
  while (body.length < Number(a.size || 0)) {
    body += String.fromCharCode(97 + (body.length * 7 + n) % 26);
  }
  const tags = (a.tags || '').split(',');
  const m = new Message(a.topic, tags[n % tags.length] || undefined, body);
  m.keys = [ key ];
  m.properties.color = 'blågrønn 青';
  if (a['delay-level']) {
    m.delayTimeLevel = Number(a['delay-level']);
  }
  if (a.dedupe) {
    m.properties.DEDUPE_KEY = `once-${n % Number(a.dedupe)}`;
  }
  if (a.priorities) {
    m.properties._SYS_MSG_PRIORITY_ = String(n % Number(a.priorities));
  }
  if (a['delay-ms']) { // the client has no call for it, its users set the property
    m.properties.TIMER_DELIVER_MS = String(Date.now() + Number(a['delay-ms']));
  }
  return { body, m };
}

async function one(producer, a, n) {
  const { body, m } = message(a, n);
  try {
    const r = await producer.send(m);
    event('sent', { n, body, id: m.properties.UNIQ_KEY, offsetId: r.msgId, status: r.sendStatus, broker: r.messageQueue.brokerName,
      queue: Number(r.messageQueue.queueId), offset: Number(r.queueOffset) });
  } catch (err) {
    event('failed', { n, body, error: String(err) });
  }
}

main(async a => {
  const producer = new Producer({ ...options(a), producerGroup: a.group, sendMsgTimeout: 10000 });
  producer.on('error', err => console.error(err));
  await producer.ready();
  event('ready');
  const count = Number(a.count || 1);
  if (a.mode === 'async') {
    await Promise.all(Array.from({ length: count }, (_, n) => one(producer, a, n)));
  } else {
    let stopped = false;
    endOfInput().then(() => { stopped = true; });
    for (let n = 0; count ? n < count : !stopped; n++) {
      await one(producer, a, n);
      await new Promise(resolve => setTimeout(resolve, Number(a.interval || 0)));
    }
  }
  event('done');
  await producer.close();
});
