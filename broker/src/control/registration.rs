//! Registration with the name servers: what is sent, what the answer says, and when the next one is due.
//!
//! A registration carries the whole topic table, and goes out when something of it changes and every period. So a name
//! server that was restarted, or that missed one, is right again with the next.
//!
//! A large table is another matter. As JSON, 100,000 topics are over the 16 MiB that a name server takes, and would hold the
//! core for 0.1 s. So it is sent compressed, and made in slices. Where a few of its topics changed, they are stated one by one
//! (217): thousands of topics, each made by its first message, would otherwise be sent thousands of times. Where none has, the
//! name server is asked whether it has the table's version (322), which is a sign of life as well.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ringmq_env::Instant;
use ringmq_protocol::body::{
    CompressedRegistration, KvTable, QueueData, RegisterBrokerBody, TopicConfig, TopicConfigSerializeWrapper,
    TopicRouteData, perm,
};
use ringmq_protocol::codes::{request, response};
use ringmq_protocol::command::Command;
use ringmq_protocol::headers::{
    BrokerIdentityHeader, QueryDataVersionResponseHeader, RegisterBrokerHeader, TopicHeader,
};
use ringmq_protocol::json::{self, Dialect};

use super::topics::TopicTable;

/// First wait after a failed registration; doubled with each further one, up to the period.
const FIRST_BACK_OFF: Duration = Duration::from_millis(500);

/// Smaller tables are always sent whole, as JSON.
const LARGE_TABLE: usize = 1000;

/// Topics of a large table that are taken in before other tasks have their turn.
const TOPICS_AT_ONCE: usize = 256;

/// A large table is sent after so many periods in which the name server said that it has it: topics may have been deleted
/// there alone, and which of them are ordered is told in the answer to the table.
const MAX_STATED_VERSIONS: u32 = 3;

/// Topics are told by themselves if so many times as many did not change.
const SMALL_PART: usize = 32;

/// What a name server has to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    /// The whole table.
    All,
    /// These topics; what else it knows is right.
    Topics(BTreeSet<Arc<str>>),
}

impl Changed {
    /// Nothing.
    pub fn nothing() -> Changed {
        Changed::Topics(BTreeSet::new())
    }

    /// Adds a topic that was made or changed.
    pub fn add(&mut self, topic: &Arc<str>) {
        if let Changed::Topics(topics) = self {
            topics.insert(topic.clone());
        }
    }
}

/// How the broker names itself to name servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerIdentity {
    /// Cluster that it belongs to.
    pub cluster: String,
    /// Its own name.
    pub broker_name: String,
    /// 0: the master.
    pub broker_id: i64,
    /// `address:port` that clients are told.
    pub addr: String,
    /// `address:port` for replicas. Nothing listens there yet, but name servers want one.
    pub ha_addr: String,
}

impl BrokerIdentity {
    /// REGISTER_TOPIC_IN_NAMESRV; `None` of a topic that is gone.
    pub fn register_topic(&self, topics: &TopicTable, name: &str, permission: i32) -> Option<Command> {
        let config = topics.get(name)?;
        let queues = QueueData {
            broker_name: self.broker_name.clone(),
            perm: config.perm & mask(permission),
            read_queue_nums: config.read_queue_nums,
            topic_sys_flag: config.topic_sys_flag,
            write_queue_nums: config.write_queue_nums,
        };
        let route = TopicRouteData { queue_datas: vec![queues], ..TopicRouteData::default() };
        let request = Command::request(request::REGISTER_TOPIC_IN_NAMESRV, 0);
        Some(request.with_header(&TopicHeader { topic: name }).with_body(json::to_vec(&route, Dialect::Java)))
    }

    /// REGISTER_BROKER with every topic. With a broker `permission` that lacks a bit, topics lack it too.
    pub fn register(&self, topics: &TopicTable, permission: i32) -> Command {
        let mask = mask(permission);
        let table = topics.iter().map(|(name, config)| {
            (name.to_string(), TopicConfig { perm: config.perm & mask, ..TopicConfig::clone(config) })
        });
        let body = RegisterBrokerBody {
            filter_server_list: Vec::new(),
            topic_config_serialize_wrapper: TopicConfigSerializeWrapper {
                data_version: topics.version(),
                topic_config_table: table.collect(),
                ..TopicConfigSerializeWrapper::default()
            },
        };
        self.register_with(json::to_vec(&body, Dialect::Java), false)
    }

    fn register_with(&self, body: Vec<u8>, compressed: bool) -> Command {
        let header = RegisterBrokerHeader {
            broker_name: &self.broker_name,
            broker_addr: &self.addr,
            cluster_name: &self.cluster,
            ha_server_addr: Some(&self.ha_addr),
            broker_id: self.broker_id,
            heartbeat_timeout_millis: None,
            enable_acting_master: Some(false),
            compressed,
            body_crc32: (crc32fast::hash(&body) & 0x7fff_ffff) as i32,
            zone_name: None,
        };
        Command::request(request::REGISTER_BROKER, 0).with_header(&header).with_body(body)
    }

    /// QUERY_DATA_VERSION, of a large table.
    pub fn state_version(&self, topics: &TopicTable) -> Option<Command> {
        let request = || self.about_itself(request::QUERY_DATA_VERSION);
        is_large(topics).then(|| request().with_body(json::to_vec(&topics.version(), Dialect::Java)))
    }

    /// UNREGISTER_BROKER.
    pub fn unregister(&self) -> Command {
        self.about_itself(request::UNREGISTER_BROKER)
    }

    fn about_itself(&self, code: i32) -> Command {
        Command::request(code, 0).with_header(&BrokerIdentityHeader {
            broker_name: &self.broker_name,
            broker_addr: &self.addr,
            cluster_name: &self.cluster,
            broker_id: self.broker_id,
        })
    }
}

/// What a name server is told to know the whole table.
#[derive(Clone, Debug, PartialEq)]
pub struct WholeTable {
    /// REGISTER_BROKER.
    pub registration: Command,
    /// Topics of which that cannot say everything: to be told by themselves once it is taken.
    pub behind: Vec<Arc<str>>,
}

/// The registration of a large table in the making.
pub struct LargeRegistration<'a> {
    identity: &'a BrokerIdentity,
    mask: i32,
    body: CompressedRegistration,
    behind: Vec<Arc<str>>,
    /// The topic that was taken in last.
    last: Option<Arc<str>>,
    /// [`TopicTable::deletions`] at the beginning.
    deletions: u64,
}

impl<'a> LargeRegistration<'a> {
    /// Of a table that is large now; `None` of another.
    pub fn new(
        identity: &'a BrokerIdentity,
        topics: &TopicTable,
        permission: i32,
    ) -> Option<LargeRegistration<'a>> {
        let new = || LargeRegistration {
            identity,
            mask: mask(permission),
            body: CompressedRegistration::new(&topics.version()),
            behind: Vec::new(),
            last: None,
            deletions: topics.deletions(),
        };
        is_large(topics).then(new)
    }

    /// Takes in the next topics; false: there are none left. What comes or changes in between is told behind it, as a change.
    /// What goes is not: name servers keep topics that a later table does not name.
    pub fn take_in(&mut self, topics: &TopicTable) -> bool {
        let mut taken = None;
        for (name, config) in topics.behind(self.last.as_ref()).take(TOPICS_AT_ONCE) {
            self.body.add(config, config.perm & self.mask);
            if config.topic_sys_flag != 0 {
                self.behind.push(name.clone());
            }
            taken = Some(name.clone());
        }
        let has_taken = taken.is_some();
        self.last = taken.or(self.last.take());
        has_taken
    }

    /// Compresses what was taken in; `rest` is called again and again meanwhile, and `deletions` at the end. `None`: a topic was
    /// deleted since the beginning, which would be there again.
    pub async fn finish<F: Future<Output = ()>>(
        self,
        rest: impl FnMut() -> F,
        deletions: impl FnOnce() -> u64,
    ) -> Option<WholeTable> {
        let body = self.body.compress(rest).await.expect("memory takes all that is written");
        let is_whole = self.deletions == deletions();
        is_whole.then(|| {
            let registration = self.identity.register_with(body, true);
            WholeTable { registration, behind: self.behind }
        })
    }
}

/// Whether these topics are so few of a large table that they are told by themselves. One that is gone is the whole table's
/// affair.
pub fn are_few(topics: &TopicTable, changed: &BTreeSet<Arc<str>>) -> bool {
    is_large(topics)
        && changed.len() * SMALL_PART <= topics.iter().len()
        && changed.iter().all(|topic| topics.get(topic).is_some())
}

fn is_large(topics: &TopicTable) -> bool {
    topics.iter().len() >= LARGE_TABLE
}

/// The permission bits that the broker leaves its topics.
fn mask(permission: i32) -> i32 {
    let read_write = perm::READ | perm::WRITE;
    if permission & read_write == read_write { !0 } else { permission }
}

/// Why a name server's answer is none that a registration can have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// It refused.
    #[error("it answered {code}: {remark}")]
    Refused {
        /// Its code.
        code: i32,
        /// Its remark.
        remark: String,
    },
    /// Its body is no table.
    #[error("its answer cannot be read: {0}")]
    Body(#[from] json::JsonError),
}

/// Whether the name server took what it was told.
pub fn check(answer: &Command) -> Result<(), AnswerError> {
    if answer.code == response::SUCCESS {
        return Ok(());
    }
    Err(AnswerError::Refused { code: answer.code, remark: answer.remark.clone().unwrap_or_default() })
}

/// Topics that the name server has an order configuration for, from its answer to a registration.
pub fn ordered_topics(answer: &Command) -> Result<Vec<String>, AnswerError> {
    check(answer)?;
    if answer.body.is_empty() {
        return Ok(Vec::new());
    }
    let table: KvTable = json::from_slice(&answer.body)?;
    Ok(table.table.into_keys().collect())
}

/// Whether the name server has the version of the table that it was asked about.
pub fn has_version(answer: &Command) -> bool {
    let header = || answer.header::<QueryDataVersionResponseHeader>();
    answer.code == response::SUCCESS && header().is_ok_and(|header| !header.changed)
}

/// A name server came within reach, or went out of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Registrations succeed now.
    Up,
    /// Registrations fail now.
    Down,
}

/// When to register with one name server.
#[derive(Clone, Debug)]
pub struct Schedule {
    period: Duration,
    due: Instant,
    failures: u32,
    /// Changes so far, and how many of them the name server has.
    wanted: u64,
    sent: u64,
    acknowledged: u64,
    /// Periods since the whole table was taken.
    stated_versions: u32,
    up: Option<bool>,
}

impl Schedule {
    /// The first registration is due at once.
    pub fn new(period: Duration, now: Instant) -> Schedule {
        Schedule {
            period,
            due: now,
            failures: 0,
            wanted: 1,
            sent: 0,
            acknowledged: 0,
            stated_versions: 0,
            up: None,
        }
    }

    /// The topics changed: register at once, unless the name server is being waited for.
    pub fn topics_changed(&mut self) {
        self.wanted += 1;
    }

    /// How long to wait from `now` until the next registration; zero: now.
    pub fn wait(&self, now: Instant) -> Duration {
        if self.failures == 0 && self.sent < self.wanted { Duration::ZERO } else { self.due.since(now) }
    }

    /// A registration with the topics of this moment is on its way.
    pub fn begun(&mut self) {
        self.sent = self.wanted;
    }

    /// Whether a sign of life is due, changes or not: the whole table, or its version.
    pub fn is_period_over(&self, now: Instant) -> bool {
        self.due.since(now).is_zero()
    }

    /// The name server took the whole table.
    pub fn succeeded(&mut self, now: Instant) -> Option<Turn> {
        (self.acknowledged, self.failures, self.stated_versions) = (self.sent, 0, 0);
        self.due = now.after(self.period);
        self.turn(true)
    }

    /// Whether it may do to ask whether the name server has the table's version.
    pub fn may_state_version(&self) -> bool {
        self.sent == self.wanted && self.stated_versions < MAX_STATED_VERSIONS
    }

    /// The name server has the table's version.
    pub fn version_taken(&mut self, now: Instant) {
        self.stated_versions += 1;
        self.due = now.after(self.period);
    }

    /// The name server took the topics that had changed.
    pub fn changes_taken(&mut self) {
        self.acknowledged = self.sent;
    }

    /// The name server could not be reached, refused, or closed the connection.
    pub fn failed(&mut self, now: Instant) -> Option<Turn> {
        let doubled = FIRST_BACK_OFF.saturating_mul(1 << self.failures.min(16));
        self.failures += 1;
        self.sent = self.acknowledged;
        self.due = now.after(doubled.min(self.period));
        self.turn(false)
    }

    fn turn(&mut self, up: bool) -> Option<Turn> {
        let turned = self.up != Some(up);
        self.up = Some(up);
        turned.then_some(if up { Turn::Up } else { Turn::Down })
    }

    /// Whether nothing can be waited for: the name server has everything up to this change, or is out of reach.
    pub fn is_settled(&self, change: u64) -> bool {
        self.acknowledged >= change || self.up == Some(false)
    }

    /// Number of the last change.
    pub fn last_change(&self) -> u64 {
        self.wanted
    }
}

#[cfg(test)]
mod tests {
    use ringmq_protocol::body::DataVersion;
    use ringmq_protocol::headers::RegisterBrokerHeader;

    use super::*;
    use crate::control::topics::{AutoCreate, TopicSettings};

    fn identity() -> BrokerIdentity {
        BrokerIdentity {
            cluster: "c".into(),
            broker_name: "b".into(),
            broker_id: 0,
            addr: "127.0.0.1:10911".into(),
            ha_addr: "127.0.0.1:10912".into(),
        }
    }

    fn topics() -> TopicTable {
        let settings = TopicSettings {
            cluster: "c".into(),
            broker_name: "b".into(),
            default_topic_queue_nums: 8,
            auto_create_topic: true,
            trace_topic: false,
            mixed_types: false,
            shards: 1,
        };
        TopicTable::new(&settings, 7)
    }

    #[test]
    fn a_registration_carries_every_topic() {
        let command = identity().register(&topics(), 6);
        let header: RegisterBrokerHeader<'_> = command.header().unwrap();
        assert_eq!((header.broker_addr, header.broker_id, header.compressed), ("127.0.0.1:10911", 0, false));
        assert_eq!(header.body_crc32, (crc32fast::hash(&command.body) & 0x7fff_ffff) as i32);
        let body: RegisterBrokerBody = json::from_slice(&command.body).unwrap();
        let wrapper = body.topic_config_serialize_wrapper;
        assert_eq!(wrapper.data_version.timestamp, 7);
        assert_eq!(wrapper.topic_config_table.len(), 14);
        assert_eq!(wrapper.topic_config_table["TBW102"].perm, 7);
        assert!(
            command
                .body
                .starts_with(br#"{"filterServerList":[],"topicConfigSerializeWrapper":{"dataVersion":"#)
        );
    }

    #[test]
    fn a_few_topics_of_a_large_table_are_told_by_themselves() {
        let mut table = topics();
        let names = |numbers: std::ops::Range<usize>| -> BTreeSet<Arc<str>> {
            numbers.map(|number| format!("t{number}").into()).collect()
        };
        for number in 0..LARGE_TABLE {
            assert!(table.iter().len() >= LARGE_TABLE || !are_few(&table, &names(0..1)));
            let ask = AutoCreate {
                topic: &format!("t{number}"),
                default_topic: "TBW102",
                queue_nums: 4,
                unit_mode: false,
            };
            table.auto_create(&ask, 8).unwrap();
        }
        assert!(are_few(&table, &names(0..2)) && !are_few(&table, &names(0..100)));
        assert!(!are_few(&table, &["t1".into(), "gone".into()].into()));
        let command = identity().register_topic(&table, "t1", 4).unwrap();
        assert_eq!(command.header::<TopicHeader<'_>>().unwrap().topic, "t1");
        let body: TopicRouteData = json::from_slice(&command.body).unwrap();
        let queues = &body.queue_datas[0];
        assert_eq!((&*queues.broker_name, queues.perm, queues.write_queue_nums), ("b", 4, 4));
        assert_eq!(identity().register_topic(&table, "gone", 6), None);
    }

    fn finish(large: LargeRegistration<'_>, topics: &TopicTable) -> Option<WholeTable> {
        futures_lite::future::block_on(large.finish(|| std::future::ready(()), || topics.deletions()))
    }

    #[test]
    fn a_large_table_is_registered_in_slices_and_compressed() {
        let mut table = topics();
        assert!(LargeRegistration::new(&identity(), &table, 6).is_none());
        assert_eq!(identity().state_version(&table), None);
        let mut add = |name: &str, unit_mode| {
            let ask = AutoCreate { topic: name, default_topic: "TBW102", queue_nums: 4, unit_mode };
            table.auto_create(&ask, 8).unwrap();
            table.iter().len()
        };
        (0..LARGE_TABLE).for_each(|n| {
            add(&format!("t{n:04}"), n == 7);
        });
        let all = add("unit", true);
        let identity = identity();
        let mut large = LargeRegistration::new(&identity, &table, 4).unwrap();
        let mut slices = 0;
        while large.take_in(&table) {
            slices += 1;
        }
        assert_eq!(slices, all.div_ceil(TOPICS_AT_ONCE));
        let WholeTable { registration, behind } = finish(large, &table).unwrap();
        let header: RegisterBrokerHeader<'_> = registration.header().unwrap();
        assert!(header.compressed);
        assert_eq!(header.body_crc32, (crc32fast::hash(&registration.body) & 0x7fff_ffff) as i32);
        let body = RegisterBrokerBody::decode(&registration.body, true, 1 << 20).unwrap();
        let wrapper = body.topic_config_serialize_wrapper;
        assert_eq!(wrapper.data_version, table.version());
        assert!(wrapper.topic_config_table.keys().eq(table.iter().map(|(name, _)| &**name)));
        let last = &wrapper.topic_config_table["t0999"];
        assert_eq!((last.perm, last.read_queue_nums, last.write_queue_nums), (4, 4, 4));
        assert_eq!(behind, ["t0007".into(), "unit".into()]);
        let asked = identity.state_version(&table).unwrap();
        assert_eq!(asked.code, request::QUERY_DATA_VERSION);
        let version: DataVersion = json::from_slice(&asked.body).unwrap();
        assert_eq!(version, table.version());
    }

    #[test]
    fn what_comes_and_goes_between_two_slices_does_no_harm() {
        let mut table = topics();
        let add = |table: &mut TopicTable, name: &str| {
            let ask = AutoCreate { topic: name, default_topic: "TBW102", queue_nums: 4, unit_mode: false };
            table.auto_create(&ask, 8).unwrap();
        };
        (0..LARGE_TABLE).for_each(|n| add(&mut table, &format!("t{n:04}")));
        let identity = identity();
        let mut large = LargeRegistration::new(&identity, &table, 6).unwrap();
        assert!(large.take_in(&table));
        let last = large.last.clone().unwrap();
        table.delete(&last, 9).unwrap();
        add(&mut table, "a-is-before");
        add(&mut table, "z-is-behind");
        while large.take_in(&table) {}
        assert_eq!(finish(large, &table), None, "it would be there again");
        let mut large = LargeRegistration::new(&identity, &table, 6).unwrap();
        assert!(large.take_in(&table));
        add(&mut table, "b-is-before");
        while large.take_in(&table) {}
        let whole = finish(large, &table).unwrap();
        let body = RegisterBrokerBody::decode(&whole.registration.body, true, 1 << 20).unwrap();
        let names = body.topic_config_serialize_wrapper.topic_config_table;
        assert!(!names.contains_key(&*last) && names.contains_key("z-is-behind"));
        assert!(!names.contains_key("b-is-before"), "a change that is told behind it");
    }

    #[test]
    fn a_broker_without_a_permission_registers_topics_without_it() {
        let command = identity().register(&topics(), 4);
        let body: RegisterBrokerBody = json::from_slice(&command.body).unwrap();
        assert_eq!(body.topic_config_serialize_wrapper.topic_config_table["BenchmarkTest"].perm, 4);
    }

    #[test]
    fn answers_name_ordered_topics_or_refuse() {
        let success = |body: &str| Command::response(0, 0).with_body(body.to_owned());
        assert_eq!(ordered_topics(&success("")), Ok(vec![]));
        assert_eq!(ordered_topics(&success("{}")), Ok(vec![]));
        assert_eq!(ordered_topics(&success(r#"{"table":{"t":"b:4"}}"#)), Ok(vec!["t".into()]));
        assert!(matches!(ordered_topics(&success("[")), Err(AnswerError::Body(_))));
        let refused = Command::response(1, 0).with_remark("crc32 not match");
        assert_eq!(ordered_topics(&refused).unwrap_err().to_string(), "it answered 1: crc32 not match");
    }

    fn at(ms: u64) -> Instant {
        Instant(ms * 1_000_000)
    }

    #[test]
    fn registrations_come_every_period_and_with_each_change() {
        let mut schedule = Schedule::new(Duration::from_secs(30), at(0));
        assert_eq!(schedule.wait(at(0)), Duration::ZERO);
        schedule.begun();
        schedule.topics_changed();
        let change = schedule.last_change();
        assert_eq!(schedule.succeeded(at(10)), Some(Turn::Up));
        assert!(!schedule.is_settled(change), "it changed while the registration was on its way");
        assert_eq!(schedule.wait(at(10)), Duration::ZERO);
        schedule.begun();
        assert_eq!(schedule.succeeded(at(20)), None);
        assert!(schedule.is_settled(change));
        assert_eq!(schedule.wait(at(20)), Duration::from_secs(30));
    }

    #[test]
    fn failures_back_off_and_are_told_once() {
        let mut schedule = Schedule::new(Duration::from_secs(30), at(0));
        let mut waits = Vec::new();
        for round in 0..8 {
            schedule.begun();
            let turn = schedule.failed(at(0));
            assert_eq!(turn, (round == 0).then_some(Turn::Down));
            waits.push(schedule.wait(at(0)).as_millis());
        }
        assert_eq!(waits, [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]);
        schedule.topics_changed();
        assert_eq!(schedule.wait(at(0)).as_secs(), 30, "a change does not hurry a name server that is away");
        assert!(schedule.is_settled(schedule.last_change()), "nobody waits for it");
        schedule.begun();
        assert_eq!(schedule.succeeded(at(1)), Some(Turn::Up));
    }
}
