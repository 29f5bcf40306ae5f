//! Brokers and a name server as far as consumer groups need them: what is stored survives a crash, who is there and who
//! has which lock does not, as in the real ones.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use ringmq_protocol::body::{
    BrokerData, ConsumerIdList, HeartbeatData, LockBatchRequestBody, LockBatchResponseBody, MessageQueue,
    QueueData, TopicRouteData,
};
use ringmq_protocol::codes::{request, response};
use ringmq_protocol::command::Command;
use ringmq_protocol::frame::{self, Limits};
use ringmq_protocol::headers::{
    PullHeader, QueryConsumerOffsetHeader, QueueHeader, SendHeaderV2, SendMsgBackHeader,
    UnregisterClientHeader, UpdateConsumerOffsetHeader, pull_sys_flag,
};
use ringmq_protocol::json::{self, Dialect};
use ringmq_protocol::record::RecordFields;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::net::Hub;

/// Queues of the topic at each broker.
pub const QUEUES: i32 = 4;
/// How long a lock holds.
const LOCK_LIFE: Duration = Duration::from_secs(60);
/// How long a silent member is believed to be there.
const MEMBER_LIFE: Duration = Duration::from_secs(120);
/// When a message that was sent back comes again.
const RETRY: Duration = Duration::from_secs(3);

pub fn addr(broker: &str) -> String {
    format!("{broker}:10911")
}

/// Serves the routes of every topic until the world ends: the group's retry topic has one queue at each broker.
pub fn start_name_server(hub: &Hub, brokers: &'static [&'static str]) {
    let mut streams = hub.listen("ns:9876", CancellationToken::new());
    tokio::spawn(async move {
        while let Some(stream) = streams.recv().await {
            let handler = move |command: Command, _: Outbox| async move {
                let queues =
                    if command.get("topic").is_some_and(|t| t.starts_with('%')) { 1 } else { QUEUES };
                let body = json::to_vec(&route(brokers, queues), Dialect::Standard);
                Some(Command::response(response::SUCCESS, 0).with_body(body))
            };
            tokio::spawn(serve(stream, handler, || {}));
        }
    });
}

fn route(brokers: &[&str], queues: i32) -> TopicRouteData {
    let broker = |name: &&str| BrokerData {
        broker_name: (*name).to_owned(),
        broker_addrs: BTreeMap::from([(0, addr(name))]),
        ..BrokerData::default()
    };
    let queues = |name: &&str| QueueData {
        broker_name: (*name).to_owned(),
        perm: 6,
        read_queue_nums: queues,
        write_queue_nums: queues,
        topic_sys_flag: 0,
    };
    TopicRouteData {
        broker_datas: brokers.iter().map(broker).collect(),
        queue_datas: brokers.iter().map(queues).collect(),
        ..TopicRouteData::default()
    }
}

type Outbox = mpsc::UnboundedSender<Command>;

/// Reads requests and answers each in a task of its own; `gone` is called at the end of the stream.
async fn serve<H, F>(stream: DuplexStream, handler: H, gone: impl FnOnce())
where
    H: Fn(Command, Outbox) -> F,
    F: Future<Output = Option<Command>> + Send + 'static,
{
    let (mut read, mut write) = tokio::io::split(stream);
    let (outbox, mut answers) = mpsc::unbounded_channel::<Command>();
    tokio::spawn(async move {
        while let Some(answer) = answers.recv().await {
            let mut out = BytesMut::new();
            answer.encode_json(&mut out);
            if write.write_all(&out).await.is_err() {
                return;
            }
        }
    });
    let (mut buf, limits) = (BytesMut::new(), Limits::default());
    while read.read_buf(&mut buf).await.is_ok_and(|read| read > 0) {
        while let Some(size) = frame::peek(&buf, &limits).unwrap().filter(|size| buf.len() >= *size) {
            let command = Command::decode(&mut buf[..size], &limits).unwrap();
            buf.advance(size);
            let (opaque, oneway) = (command.opaque, command.is_oneway());
            let (answering, outbox) = (handler(command, outbox.clone()), outbox.clone());
            tokio::spawn(async move {
                if let Some(mut answer) = answering.await.filter(|_| !oneway) {
                    answer.opaque = opaque;
                    // A client that has gone wants no answer.
                    let _ = outbox.send(answer);
                }
            });
        }
    }
    gone();
}

struct Stored {
    body: Vec<u8>,
    properties: String,
    reconsume_times: i32,
}

struct MemberEntry {
    outbox: Outbox,
    seen: Instant,
}

/// A group and a queue.
type Owned = (String, MessageQueue);

#[derive(Default)]
struct State {
    logs: HashMap<(String, i32), Vec<Stored>>,
    offsets: HashMap<(String, String, i32), i64>,
    /// By group and client id.
    members: HashMap<String, BTreeMap<String, MemberEntry>>,
    locks: HashMap<Owned, (String, Instant)>,
}

/// A broker.
#[derive(Clone)]
pub struct Broker {
    pub name: &'static str,
    hub: Hub,
    state: Arc<Mutex<State>>,
    arrived: Arc<Notify>,
}

impl Broker {
    pub fn new(hub: &Hub, name: &'static str) -> Broker {
        Broker { name, hub: hub.clone(), state: Arc::default(), arrived: Arc::default() }
    }

    pub fn start(&self) {
        let life = CancellationToken::new();
        let mut streams = self.hub.listen(&addr(self.name), life.clone());
        let broker = self.clone();
        tokio::spawn(async move {
            while let Some(stream) = streams.recv().await {
                let (here, gone) = (broker.clone(), broker.clone());
                let mine: Arc<Mutex<Option<Outbox>>> = Arc::default();
                let theirs = mine.clone();
                let handler = move |command, outbox: Outbox| {
                    *mine.lock().unwrap() = Some(outbox.clone());
                    let broker = here.clone();
                    async move { broker.answer(command, outbox).await }
                };
                tokio::spawn(serve(stream, handler, move || {
                    gone.disconnected(&theirs.lock().unwrap().take())
                }));
            }
        });
    }

    /// Dies: connections, members and locks are lost.
    pub fn crash(&self) {
        self.hub.kill(&addr(self.name));
        let mut state = self.state.lock().unwrap();
        state.members.clear();
        state.locks.clear();
    }

    /// The committed offsets of a group.
    pub fn committed(&self, group: &str) -> BTreeMap<(String, i32), i64> {
        let state = self.state.lock().unwrap();
        let of_group = state.offsets.iter().filter(|((g, ..), _)| g == group);
        of_group.map(|((_, topic, queue), offset)| ((topic.clone(), *queue), *offset)).collect()
    }

    fn disconnected(&self, outbox: &Option<Outbox>) {
        let Some(outbox) = outbox else { return };
        let mut state = self.state.lock().unwrap();
        for members in state.members.values_mut() {
            let before = members.len();
            members.retain(|_, member| !member.outbox.same_channel(outbox));
            if members.len() != before {
                notify(members);
            }
        }
    }

    async fn answer(&self, command: Command, outbox: Outbox) -> Option<Command> {
        let ok = Command::response(response::SUCCESS, 0);
        match command.code {
            request::HEART_BEAT => {
                self.beat(&json::from_slice(&command.body).unwrap(), &outbox);
                Some(ok)
            }
            request::UNREGISTER_CLIENT => {
                self.unregister(&command.header().unwrap());
                Some(ok)
            }
            request::GET_CONSUMER_LIST_BY_GROUP => {
                let body = self.member_ids(command.get("consumerGroup").unwrap());
                Some(ok.with_body(json::to_vec(&body, Dialect::Java)))
            }
            request::QUERY_CONSUMER_OFFSET => Some(self.offset(&command.header().unwrap())),
            request::UPDATE_CONSUMER_OFFSET => {
                let header: UpdateConsumerOffsetHeader<'_> = command.header().unwrap();
                let key = (header.consumer_group.to_owned(), header.topic.to_owned(), header.queue_id);
                self.state.lock().unwrap().offsets.insert(key, header.commit_offset);
                Some(ok)
            }
            request::GET_MAX_OFFSET => {
                let header: QueueHeader<'_> = command.header().unwrap();
                Some(ok.with_ext("offset", self.len(header.topic, header.queue_id)))
            }
            request::LOCK_BATCH_MQ => Some(ok.with_body(self.lock(&command))),
            request::UNLOCK_BATCH_MQ => {
                self.unlock(&command);
                Some(ok)
            }
            request::SEND_MESSAGE_V2 => Some(self.send(&command)),
            request::CONSUMER_SEND_MSG_BACK => Some(self.send_back(&command)),
            request::PULL_MESSAGE => Some(self.pull(&command.header().unwrap()).await),
            code => panic!("the simulated broker does not know {code}"),
        }
    }

    fn beat(&self, data: &HeartbeatData, outbox: &Outbox) {
        let mut state = self.state.lock().unwrap();
        for consumer in &data.consumer_data_set {
            let members = state.members.entry(consumer.group_name.clone()).or_default();
            let entry = MemberEntry { outbox: outbox.clone(), seen: Instant::now() };
            if members.insert(data.client_id.clone(), entry).is_none() {
                notify(members);
            }
        }
    }

    fn unregister(&self, header: &UnregisterClientHeader<'_>) {
        let mut state = self.state.lock().unwrap();
        let Some(members) = header.consumer_group.and_then(|group| state.members.get_mut(group)) else {
            return;
        };
        if members.remove(header.client_id).is_some() {
            notify(members);
        }
    }

    fn member_ids(&self, group: &str) -> ConsumerIdList {
        let mut state = self.state.lock().unwrap();
        let members = state.members.entry(group.to_owned()).or_default();
        members.retain(|_, member| member.seen.elapsed() < MEMBER_LIFE);
        ConsumerIdList { consumer_id_list: members.keys().cloned().collect() }
    }

    fn offset(&self, header: &QueryConsumerOffsetHeader<'_>) -> Command {
        let key = (header.consumer_group.to_owned(), header.topic.to_owned(), header.queue_id);
        let offset = self.state.lock().unwrap().offsets.get(&key).copied().unwrap_or(0);
        Command::response(response::SUCCESS, 0).with_ext("offset", offset)
    }

    fn lock(&self, command: &Command) -> Vec<u8> {
        let body: LockBatchRequestBody = json::from_slice(&command.body).unwrap();
        let mut state = self.state.lock().unwrap();
        let mut lock_ok_mq_set = Vec::new();
        for queue in body.mq_set {
            let key = (body.consumer_group.clone(), queue.clone());
            let free = state
                .locks
                .get(&key)
                .is_none_or(|(owner, at)| *owner == body.client_id || at.elapsed() >= LOCK_LIFE);
            if free {
                state.locks.insert(key, (body.client_id.clone(), Instant::now()));
                lock_ok_mq_set.push(queue);
            }
        }
        json::to_vec(&LockBatchResponseBody { lock_ok_mq_set }, Dialect::Java)
    }

    fn unlock(&self, command: &Command) {
        let body: LockBatchRequestBody = json::from_slice(&command.body).unwrap();
        let mut state = self.state.lock().unwrap();
        for queue in body.mq_set {
            let key = (body.consumer_group.clone(), queue);
            if state.locks.get(&key).is_some_and(|(owner, _)| *owner == body.client_id) {
                state.locks.remove(&key);
            }
        }
    }

    fn len(&self, topic: &str, queue: i32) -> i64 {
        let state = self.state.lock().unwrap();
        state.logs.get(&(topic.to_owned(), queue)).map_or(0, |log| log.len() as i64)
    }

    fn append(&self, topic: &str, queue: i32, stored: Stored) -> i64 {
        let mut state = self.state.lock().unwrap();
        let log = state.logs.entry((topic.to_owned(), queue)).or_default();
        log.push(stored);
        self.arrived.notify_waiters();
        log.len() as i64 - 1
    }

    fn send(&self, command: &Command) -> Command {
        let header: SendHeaderV2<'_> = command.header().unwrap();
        let stored = Stored {
            body: command.body.to_vec(),
            properties: header.properties.unwrap_or_default().to_owned(),
            reconsume_times: header.reconsume_times.unwrap_or(0),
        };
        let offset = self.append(header.topic, header.queue_id, stored);
        let answer = Command::response(response::SUCCESS, 0).with_ext("msgId", "M");
        answer.with_ext("queueId", header.queue_id).with_ext("queueOffset", offset)
    }

    /// Physical offsets are made of queue and offset, so that a message is found again.
    fn send_back(&self, command: &Command) -> Command {
        let header: SendMsgBackHeader<'_> = command.header().unwrap();
        let (queue, at) = ((header.offset >> 32) as i32, (header.offset & 0xffff_ffff) as usize);
        let retry = format!("%RETRY%{}", header.group);
        let origin = header.origin_topic.unwrap_or_default();
        let stored = {
            let state = self.state.lock().unwrap();
            let topic = if queue >= QUEUES { &retry } else { origin };
            let found = &state.logs[&(topic.to_owned(), queue % QUEUES)][at];
            let mut properties = found.properties.clone();
            if !properties.contains("RETRY_TOPIC") {
                properties.push_str(&format!("RETRY_TOPIC\u{1}{origin}\u{2}"));
            }
            Stored { body: found.body.clone(), properties, reconsume_times: found.reconsume_times + 1 }
        };
        let broker = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(RETRY).await;
            broker.append(&retry, 0, stored);
        });
        Command::response(response::SUCCESS, 0)
    }

    async fn pull(&self, header: &PullHeader<'_>) -> Command {
        if header.sys_flag & pull_sys_flag::COMMIT_OFFSET != 0 && header.commit_offset > 0 {
            let key = (header.consumer_group.to_owned(), header.topic.to_owned(), header.queue_id);
            self.state.lock().unwrap().offsets.insert(key, header.commit_offset);
        }
        let waiting = async {
            loop {
                let arrived = self.arrived.notified();
                if self.len(header.topic, header.queue_id) > header.queue_offset {
                    return;
                }
                arrived.await;
            }
        };
        let _ = timeout(Duration::from_millis(header.suspend_timeout_millis as u64), waiting).await;
        let (body, next) = self.read(header);
        let code = if body.is_empty() { response::PULL_NOT_FOUND } else { response::SUCCESS };
        let answer = Command::response(code, 0).with_ext("nextBeginOffset", next).with_ext("minOffset", 0);
        answer.with_ext("maxOffset", self.len(header.topic, header.queue_id)).with_body(body)
    }

    fn read(&self, header: &PullHeader<'_>) -> (Vec<u8>, i64) {
        let state = self.state.lock().unwrap();
        let key = (header.topic.to_owned(), header.queue_id);
        let (first, most) = (header.queue_offset as usize, header.max_msg_nums as usize);
        let mut body = Vec::new();
        let stored = state.logs.get(&key).map(Vec::as_slice).unwrap_or_default();
        let found = stored.iter().enumerate().skip(first).take(most);
        let mut next = header.queue_offset;
        for (at, stored) in found {
            body.extend(encode(header.topic, header.queue_id, at, stored));
            next += 1;
        }
        (body, next)
    }
}

fn encode(topic: &str, queue_id: i32, at: usize, stored: &Stored) -> Vec<u8> {
    let place = i64::from(queue_id + if topic.starts_with('%') { QUEUES } else { 0 });
    let fields = RecordFields {
        queue_id,
        flag: 0,
        queue_offset: at as i64,
        physical_offset: place << 32 | at as i64,
        sys_flag: 0,
        born_timestamp: 1,
        born_host: "127.0.0.1:1".parse().unwrap(),
        store_timestamp: 1,
        store_host: "127.0.0.1:2".parse().unwrap(),
        reconsume_times: stored.reconsume_times,
        prepared_transaction_offset: 0,
        body: &stored.body,
        topic,
        properties: &[stored.properties.as_bytes()],
    };
    let mut out = vec![0; fields.encoded_len().unwrap()];
    fields.encode_into(&mut out);
    out
}

fn notify(members: &BTreeMap<String, MemberEntry>) {
    for member in members.values() {
        let notice = Command::oneway(request::NOTIFY_CONSUMER_IDS_CHANGED, 0);
        // One that has gone needs no notice.
        let _ = member.outbox.send(notice);
    }
}
