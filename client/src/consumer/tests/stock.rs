//! A broker that has what consumers ask for: queues with messages, members, locks, and offsets that it was told.

use std::collections::HashMap;

use ringmq_protocol::body::{LockBatchRequestBody, LockBatchResponseBody};

use super::*;

/// The body of every message.
pub(super) const BODY: &[u8] = b"ten bytes!";

/// Messages of each queue of the topic "t", by their offsets.
pub(super) type Messages = std::ops::Range<i64>;

/// A name server "ns:1", a master "b:1" and a slave "b:2", which has nothing.
#[derive(Clone)]
pub(super) struct Stock {
    pub network: MemoryNetwork,
    members: Arc<Mutex<Vec<&'static str>>>,
}

/// Offsets of a group, by topic and queue.
type Offsets = Arc<Mutex<HashMap<(String, String), String>>>;

impl Stock {
    /// The broker has so many queues of every topic; its one member is the test's client.
    pub(super) fn new(queues: i32, messages: Messages) -> Stock {
        let stock =
            Stock { network: MemoryNetwork::default(), members: Arc::new(Mutex::new(vec!["127.0.0.1@me"])) };
        let mut route = route();
        (route.queue_datas[0].read_queue_nums, route.queue_datas[0].write_queue_nums) = (queues, queues);
        route.broker_datas[0].broker_addrs.insert(1, "b:2".to_owned());
        let route = json::to_vec(&route, Dialect::Standard);
        stock.network.peer("ns:1", move |_| Some(Command::response(0, 0).with_body(route.clone())));
        stock.network.peer("b:2", |_| Some(Command::response(0, 0)));
        let (members, offsets) = (stock.members.clone(), Offsets::default());
        stock.network.peer("b:1", move |command| match command.code {
            request::GET_CONSUMER_LIST_BY_GROUP => {
                let ids = lock(&members).iter().map(|id| (*id).to_owned()).collect();
                let list = ConsumerIdList { consumer_id_list: ids };
                Some(Command::response(0, 0).with_body(json::to_vec(&list, Dialect::Java)))
            }
            request::PULL_MESSAGE | request::LITE_PULL_MESSAGE => pulled(command, &messages, 0),
            request::LOCK_BATCH_MQ => Some(locked(command)),
            request::QUERY_CONSUMER_OFFSET | request::UPDATE_CONSUMER_OFFSET => {
                Some(offset(command, &offsets))
            }
            request::SEND_MESSAGE_V2 => {
                let answer = Command::response(0, 0).with_ext("msgId", "M");
                Some(answer.with_ext("queueId", 0).with_ext("queueOffset", 0))
            }
            _ => Some(Command::response(0, 0)),
        });
        stock
    }

    /// Members come and go.
    pub(super) fn members_become(&self, ids: &[&'static str]) {
        *lock(&self.members) = ids.to_vec();
    }

    /// Members come and go, and those who are here hear of it.
    pub(super) async fn members_are(&self, ids: &[&'static str]) {
        self.members_become(ids);
        self.network.push("b:1", Command::oneway(request::NOTIFY_CONSUMER_IDS_CHANGED, 0)).await;
    }
}

/// The answer to a pull; none where there is no message yet, as of a broker that holds the pull.
pub(super) fn pulled(command: &Command, messages: &Messages, suggested: i64) -> Option<Command> {
    let number = |name: &str| command.get(name).and_then(|text| text.parse::<i64>().ok()).unwrap();
    let (from, most) = (number("queueOffset"), number("maxMsgNums"));
    let to = messages.end.min(from + most);
    if command.get("topic") != Some("t") || from >= messages.end {
        return None;
    }
    let answer = |code, next: i64| {
        let answer = Command::response(code, 0).with_ext("nextBeginOffset", next);
        let answer = answer.with_ext("suggestWhichBrokerId", suggested);
        answer.with_ext("minOffset", messages.start).with_ext("maxOffset", messages.end)
    };
    if from < messages.start {
        return Some(answer(response::PULL_OFFSET_MOVED, messages.start));
    }
    let body: Vec<u8> = (from..to).flat_map(|offset| record("t", offset, BODY, 0, "")).collect();
    Some(answer(response::SUCCESS, to).with_body(body))
}

fn locked(command: &Command) -> Command {
    let asked: LockBatchRequestBody = json::from_slice(&command.body).unwrap();
    let body = LockBatchResponseBody { lock_ok_mq_set: asked.mq_set };
    Command::response(0, 0).with_body(json::to_vec(&body, Dialect::Java))
}

fn offset(command: &Command, offsets: &Offsets) -> Command {
    let text = |name: &str| command.get(name).unwrap().to_owned();
    let queue = (text("topic"), text("queueId"));
    let mut offsets = lock(offsets);
    if command.code == request::UPDATE_CONSUMER_OFFSET {
        offsets.insert(queue, text("commitOffset"));
        return Command::response(0, 0);
    }
    match offsets.get(&queue) {
        Some(offset) => Command::response(0, 0).with_ext("offset", offset),
        None => Command::response(response::QUERY_NOT_FOUND, 0),
    }
}
