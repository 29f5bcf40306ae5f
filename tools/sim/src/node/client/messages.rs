//! Plain sends and pulls.

use ringmq_protocol::properties::{self, names as property};
use ringmq_protocol::record::{RecordView, records};

use super::super::model::{GROUP, TOPICS};
use super::super::requests::{self, Send};
use super::*;

/// How long a pull may be held, in ms.
const SUSPEND_MS: u64 = 2_000;
/// Requests in one write when nothing goes wrong.
const LARGE_BURST: u64 = 400;
/// Queues of [`ORDERS`].
const QUEUES: u64 = 4;

/// A plain message.
fn plain(queue: u32, id: u64) -> Command {
    Send { topic: ORDERS, queue, body: Model::body(id), properties: &[], sys_flag: 0, born_ms: 1 }.command()
}

impl Client {
    fn new_plain(&self) -> (QueueName, u64) {
        let queue = (ORDERS, self.random(QUEUES) as u32);
        let mut model = self.model();
        let id = model.fresh();
        model.sends(queue, id, 0, self.env.now());
        (queue, id)
    }

    /// What the broker says to a message.
    fn sent(&self, queue: QueueName, id: u64, answer: &Command) -> bool {
        let (mut model, now) = (self.model(), self.env.now());
        let is_stored = answer.code == response::SUCCESS;
        match is_stored {
            true => model.acknowledged(queue, Some(number(answer, "queueOffset")), id, now),
            false => model.refused(queue, id, now),
        }
        is_stored
    }

    /// Sends a message; true if it was acknowledged.
    pub(super) async fn send(&mut self) -> Result<bool, Lost> {
        let (queue, id) = self.new_plain();
        let answer = self.call(plain(queue.1, id)).await?;
        Ok(self.sent(queue, id, &answer))
    }

    /// Sends many messages in one write. Each is answered, if only to say that the broker is busy.
    pub(super) async fn burst(&mut self, count: u64) -> Result<(), Lost> {
        let messages: Vec<_> = (0..count).map(|_| self.new_plain()).collect();
        let commands = messages.iter().map(|((_, queue), id)| plain(*queue, *id)).collect();
        let answers = self.call_all(commands).await?;
        for ((queue, id), answer) in messages.into_iter().zip(&answers) {
            self.sent(queue, id, answer);
        }
        Ok(())
    }

    pub(super) async fn pull_somewhere(&mut self) -> Result<(), Lost> {
        let (topic, queues) = match self.random(2) {
            0 => TOPICS[0],
            _ => self.pick(&TOPICS),
        };
        let queue = (topic, self.random(u64::from(queues)) as u32);
        self.pull(queue, SUSPEND_MS * self.random(2)).await.map(drop)
    }

    /// Pulls from where this client got to; true if it got further.
    pub(super) async fn pull(&mut self, queue: QueueName, suspend_ms: u64) -> Result<bool, Lost> {
        let offset = self.next.get(&queue).copied().unwrap_or(0);
        // What is read may be of any life since.
        let life = self.life();
        let answer = self.call(requests::pull(GROUP, queue.0, queue.1, offset, suspend_ms)).await?;
        if answer.code == response::PULL_OFFSET_MOVED || answer.code == response::PULL_RETRY_IMMEDIATELY {
            // The queue begins behind, or ends before: with ASYNC_FLUSH the power took what was read.
            let next = number(&answer, "nextBeginOffset");
            self.next.insert(queue, if next > offset { next } else { 0 });
            return Ok(next > offset);
        }
        if answer.code != response::SUCCESS {
            return Ok(false);
        }
        let mut expected = offset;
        for record in records(&answer.body) {
            let record = record.unwrap_or_else(|error| panic!("{queue:?} at {expected}: {error}"));
            assert_eq!((record.topic, record.queue_id as u32), queue);
            assert_eq!(record.queue_offset, expected, "{queue:?}");
            self.read(queue, &record, life);
            expected += 1;
        }
        assert_eq!(number(&answer, "nextBeginOffset"), expected, "{queue:?}");
        self.next.insert(queue, expected);
        Ok(true)
    }

    fn read(&mut self, queue: QueueName, record: &RecordView<'_>, life: u64) {
        let (now, wall_ms) = (self.env.now(), self.env.wall_ms());
        self.model().read(queue, record.queue_offset, record.body, now, wall_ms);
        let time = |name| properties::find(record.properties, name)?.parse::<i64>().ok();
        if let (Some(due), Some(done)) = (time(property::TIMER_DELIVER_MS), time(property::TIMER_DEQUEUE_MS))
        {
            assert!(done >= due, "{queue:?}: a timer of {due} is fired at {done}");
        }
        let (topic, id, log) = (queue.0, Model::id(record.body), record.physical_offset);
        self.seen = Some(Seen { topic, id, log, life });
    }

    /// Sends are taken, one by one and many in one write.
    pub(super) async fn check_sends(&mut self) {
        let mut tries = 0;
        while !self.send().await.expect("an answer to a send") {
            tries += 1;
            assert!(tries < 60, "sends are still refused");
            self.env.sleep(Duration::from_secs(1)).await;
        }
        self.burst(LARGE_BURST).await.expect("an answer to each send of a burst");
        // Nobody else sends: a pull at the end is held, and answered when its time is up.
        let queue = (ORDERS, 0);
        let question = requests::about_queue(request::GET_MAX_OFFSET, GROUP, queue.0, queue.1);
        let end = self.call(question).await.expect("an answer about the end");
        self.next.insert(queue, number(&end, "offset"));
        self.pull(queue, SUSPEND_MS).await.expect("an answer to a pull that was held");
    }

    /// Every queue is read from its begin to its end.
    pub(super) async fn check_queues(&mut self) {
        for (topic, queues) in TOPICS {
            for queue in (0..queues).map(|queue| (topic, queue)) {
                self.check_queue(queue).await;
            }
        }
    }

    async fn check_queue(&mut self, queue: QueueName) {
        self.next.insert(queue, 0);
        loop {
            while self.pull(queue, 0).await.expect("an answer to a pull") {}
            let (min, max) = (
                self.bound(request::GET_MIN_OFFSET, queue).await,
                self.bound(request::GET_MAX_OFFSET, queue).await,
            );
            let read = self.next[&queue];
            if read >= min {
                assert_eq!(max, read, "{queue:?} is readable to its end");
                let now = self.env.now();
                return self.model().read_whole(queue, min..max, now);
            }
            // It was deleted from before it could be read.
            self.next.insert(queue, min);
        }
    }

    /// Where the queue begins or ends.
    async fn bound(&mut self, code: i32, queue: QueueName) -> i64 {
        let question = requests::about_queue(code, GROUP, queue.0, queue.1);
        let answer = self.call(question).await.expect("an answer about the begin or the end");
        // The broker makes some topics when it needs them.
        if answer.code == response::SUCCESS { number(&answer, "offset") } else { 0 }
    }
}
