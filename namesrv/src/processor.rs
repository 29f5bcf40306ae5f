//! What each request does (Java's DefaultRequestProcessor and ClientRequestProcessor), without I/O.

use ringmq_env::Instant;
use ringmq_options::file::parse_properties;
use ringmq_options::{SettingError, Settings};
use ringmq_protocol::body::{DataVersion, RegisterBodyError, RegisterBrokerBody, TopicRouteData};
use ringmq_protocol::codes::{request, response};
use ringmq_protocol::command::Command;
use ringmq_protocol::frame::Frame;
use ringmq_protocol::header::ExtFields;
use ringmq_protocol::headers::{ExtError, FromExt};
use ringmq_protocol::json::{self, Dialect, JsonError};
use ringmq_protocol::{headers, version};
use serde::de::DeserializeOwned;

use crate::bodies;
use crate::kv::{KvChange, KvTable, ORDER_TOPIC_CONFIG};
use crate::routes::{ConnectionId, DEFAULT_SILENCE, Departure, Registration, RouteTables, UnitFilter};

/// What ends many of Java's remarks.
const FAQ: &str = "\nSee https://rocketmq.apache.org/docs/bestPractice/06FAQ for further details.";
/// Most bytes that a compressed registration may grow to: far more than a broker's table, far less than memory.
const MAX_INFLATED: usize = 64 << 20;

/// All that the name server knows.
#[derive(Debug)]
pub struct State {
    /// Routes and live brokers.
    pub tables: RouteTables,
    /// KV configuration, as durable.
    pub kv: KvTable,
    /// Options, of which some may change.
    pub settings: Settings,
}

/// What a request comes to.
#[derive(Debug)]
pub enum Outcome {
    /// An answer.
    Answer(Command),
    /// A change that must be durable before an empty success is answered.
    Change(KvChange),
}

/// Why a request fails; the remark of SYSTEM_ERROR, if no other code fits.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Header(#[from] ExtError),
    #[error("the body: {0}")]
    Body(#[from] JsonError),
    #[error(transparent)]
    Registration(#[from] RegisterBodyError),
    #[error(transparent)]
    Setting(#[from] SettingError),
    #[error("{0}")]
    Text(&'static str),
    #[error("{1}")]
    Code(i32, String),
}

impl Failure {
    fn code(&self) -> i32 {
        match self {
            Failure::Code(code, _) => *code,
            _ => response::SYSTEM_ERROR,
        }
    }
}

/// One request and its circumstances.
struct Request<'f, 'a> {
    frame: &'f Frame<'a>,
    connection: ConnectionId,
    now: Instant,
}

impl<'f, 'a> Request<'f, 'a> {
    fn header<H: FromExt<'a>>(&self) -> Result<H, ExtError> {
        H::from_ext(self.ext())
    }

    fn ext(&self) -> &'f ExtFields<'a> {
        &self.frame.header.ext
    }

    fn body(&self) -> &'f [u8] {
        self.frame.body
    }

    fn success(&self) -> Command {
        Command::response(response::SUCCESS, self.frame.header.opaque)
    }
}

type Handled = Result<Outcome, Failure>;

impl State {
    /// A name server that knows no broker yet.
    pub fn new(settings: Settings, kv: KvTable) -> State {
        State { tables: RouteTables::default(), kv, settings }
    }

    /// Handles a request that came over `connection`.
    pub fn process(&mut self, frame: &Frame<'_>, connection: ConnectionId, now: Instant) -> Outcome {
        let request = Request { frame, connection, now };
        self.dispatch(&request).unwrap_or_else(|failure| {
            let answer = Command::response(failure.code(), frame.header.opaque);
            Outcome::Answer(answer.with_remark(failure.to_string()))
        })
    }

    fn dispatch(&mut self, request: &Request<'_, '_>) -> Handled {
        match request.frame.header.code {
            request::GET_ROUTEINFO_BY_TOPIC => self.route(request),
            request::REGISTER_BROKER => self.register(request),
            request::UNREGISTER_BROKER => self.unregister(request),
            request::BROKER_HEARTBEAT => self.heartbeat(request),
            request::QUERY_DATA_VERSION => self.data_version(request),
            request::GET_BROKER_MEMBER_GROUP => self.member_group(request),
            request::GET_BROKER_CLUSTER_INFO => body(request, bodies::clusters(&self.tables.clusters())),
            request::PUT_KV_CONFIG => put_kv(request),
            request::GET_KV_CONFIG => self.get_kv(request),
            request::DELETE_KV_CONFIG => delete_kv(request),
            request::GET_KVLIST_BY_NAMESPACE => self.kv_list(request),
            request::WIPE_WRITE_PERM_OF_BROKER => self.wipe_write_perm(request),
            request::ADD_WRITE_PERM_OF_BROKER => self.add_write_perm(request),
            request::DELETE_TOPIC_IN_NAMESRV => self.delete_topic(request),
            request::REGISTER_TOPIC_IN_NAMESRV => self.register_topic(request),
            request::UPDATE_NAMESRV_CONFIG => self.update_config(request),
            request::GET_NAMESRV_CONFIG => body(request, self.settings.java_properties().into_bytes()),
            _ => self.list(request),
        }
    }

    /// The requests that list topics.
    fn list(&self, request: &Request<'_, '_>) -> Handled {
        let topics = match request.frame.header.code {
            request::GET_ALL_TOPIC_LIST_FROM_NAMESERVER => self.all_topics()?,
            request::GET_TOPICS_BY_CLUSTER => self.topics_of_cluster(request)?,
            request::GET_UNIT_TOPIC_LIST => self.unit_topics(UnitFilter::Unit)?,
            request::GET_HAS_UNIT_SUB_TOPIC_LIST => self.unit_topics(UnitFilter::UnitSub)?,
            request::GET_HAS_UNIT_SUB_UNUNIT_TOPIC_LIST => self.unit_topics(UnitFilter::UnitSubNotUnit)?,
            request::GET_SYSTEM_TOPIC_LIST_FROM_NS => {
                return body(request, bodies::system_topics(self.tables.system_topics()));
            }
            code => {
                let remark = format!(" request type {code} not supported");
                return Err(Failure::Code(response::REQUEST_CODE_NOT_SUPPORTED, remark));
            }
        };
        body(request, bodies::topic_list(topics))
    }

    fn all_topics(&self) -> Result<Vec<String>, Failure> {
        self.allowed("enable-all-topic-list")?;
        Ok(self.tables.all_topics())
    }

    fn topics_of_cluster(&self, request: &Request<'_, '_>) -> Result<Vec<String>, Failure> {
        self.allowed("enable-topic-list")?;
        let header: headers::ClusterHeader = request.header()?;
        Ok(self.tables.topics_of_cluster(header.cluster))
    }

    fn unit_topics(&self, filter: UnitFilter) -> Result<Vec<String>, Failure> {
        self.allowed("enable-topic-list")?;
        Ok(self.tables.unit_topics(filter))
    }

    fn allowed(&self, option: &str) -> Result<(), Failure> {
        if self.settings.switch(option) { Ok(()) } else { Err(Failure::Text("disable")) }
    }

    // --- routes ---

    fn route(&self, request: &Request<'_, '_>) -> Handled {
        let topic = request.ext().get("topic").unwrap_or("null");
        let Some(mut route) = self.tables.route(topic) else {
            let remark = format!("No topic route info in name server for the topic: {topic}{FAQ}");
            return Err(Failure::Code(response::TOPIC_NOT_EXIST, remark));
        };
        let mut dialect = dialect(request);
        if let Some(zone) = zone(request.ext()) {
            route.keep_zone(zone);
            // Java's zone hook encodes the body again, with its defaults.
            dialect = Dialect::Java;
        }
        let order_conf = match self.settings.switch("order-message-enable") {
            true => self.kv.get(ORDER_TOPIC_CONFIG, topic),
            false => None,
        };
        body(request, bodies::route(&route, order_conf, dialect))
    }

    fn register(&mut self, request: &Request<'_, '_>) -> Handled {
        let header: headers::RegisterBrokerHeader = request.header()?;
        let sum = (crc32fast::hash(request.body()) & 0x7fff_ffff) as i32;
        if header.body_crc32 != 0 && header.body_crc32 != sum {
            return Err(Failure::Text("crc32 not match"));
        }
        let stated = match request.body() {
            [] => RegisterBrokerBody::default(),
            body => RegisterBrokerBody::decode(body, header.compressed, MAX_INFLATED)?,
        };
        let complete = self.settings.switch("delete-topic-with-registration");
        let registration = registration_of(&header, stated, complete);
        let master = self.tables.register(registration, request.connection, request.now);
        let master = master.map_err(|_| Failure::Text("register broker failed"))?;
        let mut answer = request.success();
        if let Some(master) = master {
            answer = answer.with_ext("haServerAddr", master.ha_addr).with_ext("masterAddr", master.addr);
        }
        if self.settings.switch("return-order-topic-config")
            && let Some(entries) = self.kv.namespace(ORDER_TOPIC_CONFIG)
        {
            answer = answer.with_body(bodies::kv_table(entries));
        }
        Ok(Outcome::Answer(answer))
    }

    fn unregister(&mut self, request: &Request<'_, '_>) -> Handled {
        let header: headers::BrokerIdentityHeader = request.header()?;
        self.tables.unregister(&Departure {
            cluster: header.cluster_name.to_owned(),
            addr: header.broker_addr.to_owned(),
            broker_name: header.broker_name.to_owned(),
        });
        done(request)
    }

    fn heartbeat(&mut self, request: &Request<'_, '_>) -> Handled {
        let header: headers::BrokerHeartbeatHeader = request.header()?;
        self.tables.heartbeat(header.cluster_name, header.broker_addr, request.now);
        done(request)
    }

    fn data_version(&mut self, request: &Request<'_, '_>) -> Handled {
        let header: headers::BrokerIdentityHeader = request.header()?;
        let version: DataVersion = parsed(request.body())?;
        let (cluster, addr) = (header.cluster_name, header.broker_addr);
        let changed = self.tables.version_changed(cluster, addr, &version);
        self.tables.heartbeat(cluster, addr, request.now);
        let mut answer = request.success().with_ext("changed", changed);
        if let Some(known) = self.tables.data_version(cluster, addr) {
            answer = answer.with_body(json::to_vec(&known, Dialect::Java));
        }
        Ok(Outcome::Answer(answer))
    }

    fn member_group(&self, request: &Request<'_, '_>) -> Handled {
        let field = |name| request.ext().get(name).ok_or(ExtError::Missing { field: name });
        let (cluster, name) = (field("clusterName")?, field("brokerName")?);
        body(request, bodies::member_group(cluster, name, self.tables.broker(name)))
    }

    fn wipe_write_perm(&mut self, request: &Request<'_, '_>) -> Handled {
        let header: headers::BrokerNameHeader = request.header()?;
        let count = self.tables.wipe_write_perm(header.broker_name);
        Ok(Outcome::Answer(request.success().with_ext("wipeTopicCount", count)))
    }

    fn add_write_perm(&mut self, request: &Request<'_, '_>) -> Handled {
        let header: headers::BrokerNameHeader = request.header()?;
        let count = self.tables.add_write_perm(header.broker_name);
        Ok(Outcome::Answer(request.success().with_ext("addTopicCount", count)))
    }

    fn delete_topic(&mut self, request: &Request<'_, '_>) -> Handled {
        let header: headers::DeleteTopicInNamesrvHeader = request.header()?;
        self.tables.delete_topic(header.topic, header.cluster_name.filter(|cluster| !cluster.is_empty()));
        done(request)
    }

    fn register_topic(&mut self, request: &Request<'_, '_>) -> Handled {
        let topic = request.ext().get("topic").ok_or(ExtError::Missing { field: "topic" })?;
        let route: TopicRouteData = parsed(request.body())?;
        self.tables.register_topic(topic, bodies::stated_queues(route));
        done(request)
    }

    // --- KV configuration ---

    fn get_kv(&self, request: &Request<'_, '_>) -> Handled {
        let headers::KvConfigHeader { namespace, key } = request.header()?;
        match self.kv.get(namespace, key) {
            Some(value) => Ok(Outcome::Answer(request.success().with_ext("value", value))),
            None => {
                let remark = format!("No config item, Namespace: {namespace} Key: {key}");
                Err(Failure::Code(response::QUERY_NOT_FOUND, remark))
            }
        }
    }

    fn kv_list(&self, request: &Request<'_, '_>) -> Handled {
        let headers::NamespaceHeader { namespace } = request.header()?;
        match self.kv.namespace(namespace) {
            Some(entries) => body(request, bodies::kv_table(entries)),
            None => {
                let remark = format!("No config item, Namespace: {namespace}");
                Err(Failure::Code(response::QUERY_NOT_FOUND, remark))
            }
        }
    }

    // --- configuration ---

    /// Changes options until the next start: all of them, or none when one is refused.
    fn update_config(&mut self, request: &Request<'_, '_>) -> Handled {
        let text = std::str::from_utf8(request.body()).map_err(|_| Failure::Text("the body is not UTF-8"))?;
        let parsed = parse_properties(text);
        let entries =
            parsed.map_err(|error| Failure::Code(response::SYSTEM_ERROR, format!("the body: {error}")))?;
        let black_list: Vec<&str> =
            self.settings.text("config-black-list").split(';').map(str::trim).collect();
        if entries.iter().any(|(key, _)| black_list.contains(&key.as_str())) {
            let remark = "Can not update config in black list.".to_owned();
            return Err(Failure::Code(response::NO_PERMISSION, remark));
        }
        let mut settings = self.settings.clone();
        for (key, value) in &entries {
            settings.update(key, value)?;
        }
        self.settings = settings;
        done(request)
    }
}

fn registration_of(
    header: &headers::RegisterBrokerHeader<'_>,
    stated: RegisterBrokerBody,
    complete: bool,
) -> Registration {
    let (data_version, topics) = bodies::registered_topics(stated);
    let silence = header.heartbeat_timeout_millis.and_then(|ms| u64::try_from(ms).ok());
    Registration {
        cluster: header.cluster_name.to_owned(),
        broker_name: header.broker_name.to_owned(),
        broker_id: header.broker_id,
        addr: header.broker_addr.to_owned(),
        ha_addr: header.ha_server_addr.unwrap_or_default().to_owned(),
        zone: header.zone_name.map(str::to_owned),
        acting_master: header.enable_acting_master,
        silence: silence.map_or(DEFAULT_SILENCE, std::time::Duration::from_millis),
        data_version,
        topics,
        complete,
    }
}

/// A body of JSON; an empty one is all defaults.
fn parsed<T: DeserializeOwned + Default>(body: &[u8]) -> Result<T, JsonError> {
    if body.is_empty() { Ok(T::default()) } else { json::from_slice(body) }
}

/// Clients from 4.9.4 on, and those that ask for it, read standard JSON.
fn dialect(request: &Request<'_, '_>) -> Dialect {
    let asked = request.ext().get("acceptStandardJsonOnly");
    let asked = asked.is_some_and(|value| value.eq_ignore_ascii_case("true"));
    match asked || request.frame.header.version >= version::V4_9_4 {
        true => Dialect::Standard,
        false => Dialect::Java,
    }
}

/// The zone that the client wants its brokers in.
fn zone<'a>(ext: &ExtFields<'a>) -> Option<&'a str> {
    let on = ext.get("__ZONE_MODE").is_some_and(|mode| mode.eq_ignore_ascii_case("true"));
    ext.get("__ZONE_NAME").filter(|name| on && !name.trim().is_empty())
}

fn put_kv(request: &Request<'_, '_>) -> Handled {
    let field = |name| request.ext().get(name).map(str::to_owned);
    match (field("namespace"), field("key"), field("value")) {
        (Some(namespace), Some(key), Some(value)) => {
            Ok(Outcome::Change(KvChange::Put { namespace, key, value }))
        }
        (Some(_), Some(_), None) => Err(ExtError::Missing { field: "value" }.into()),
        _ => Err(Failure::Text("namespace or key is null")),
    }
}

fn delete_kv(request: &Request<'_, '_>) -> Handled {
    let field = |name| request.ext().get(name).map(str::to_owned);
    match (field("namespace"), field("key")) {
        (Some(namespace), Some(key)) => Ok(Outcome::Change(KvChange::Delete { namespace, key })),
        _ => Err(Failure::Text("namespace or key is null")),
    }
}

fn done(request: &Request<'_, '_>) -> Handled {
    Ok(Outcome::Answer(request.success()))
}

fn body(request: &Request<'_, '_>, body: Vec<u8>) -> Handled {
    Ok(Outcome::Answer(request.success().with_body(body)))
}

#[cfg(test)]
mod tests;
