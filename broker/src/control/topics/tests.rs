use super::*;
use crate::control::change::MetaRecord;

const NOW: i64 = 1_700_000_000_000;

fn settings() -> TopicSettings {
    TopicSettings {
        cluster: "DefaultCluster".into(),
        broker_name: "broker-a".into(),
        default_topic_queue_nums: 8,
        auto_create_topic: true,
        trace_topic: false,
        mixed_types: false,
        shards: 1,
    }
}

fn table() -> TopicTable {
    TopicTable::new(&settings(), NOW)
}

fn ask<'a>(topic: &'a str, default_topic: &'a str) -> AutoCreate<'a> {
    AutoCreate { topic, default_topic, queue_nums: 4, unit_mode: false }
}

fn record(change: &Change) -> MetaRecord {
    change.meta_record().unwrap()
}

#[test]
fn a_new_broker_has_the_system_topics() {
    let table = table();
    let shape = |name: &str| table.get(name).map(|c| (c.read_queue_nums, c.write_queue_nums, c.perm));
    assert_eq!(shape("TBW102"), Some((8, 8, 7)));
    assert_eq!(shape("BenchmarkTest"), Some((1024, 1024, 6)));
    assert_eq!(shape("DefaultCluster"), Some((16, 16, 7)));
    assert_eq!(shape("broker-a"), Some((1, 1, 7)));
    assert_eq!(shape("SCHEDULE_TOPIC_XXXX"), Some((18, 18, 6)));
    assert_eq!(shape("rmq_sys_SYNC_BROKER_MEMBER_broker-a"), Some((1, 1, 1)));
    assert_eq!(shape("RMQ_SYS_TRACE_TOPIC"), None);
    assert_eq!(table.iter().len(), 14);
    assert!(table.is_system("RMQ_SYS_TRACE_TOPIC") && table.is_system("rmq_sys_anything"));
    assert!(table.system_topics().any(|name| &**name == "CHECKPOINT_TOPIC"));
}

#[test]
fn a_send_creates_from_the_default_topic() {
    let mut table = table();
    let (config, change) = table.auto_create(&ask("orders", "TBW102"), NOW + 1).unwrap();
    assert_eq!((config.read_queue_nums, config.write_queue_nums, config.perm), (4, 4, 6));
    assert_eq!(change, Some(Change::Topic { name: "orders".into(), config: Some(config.clone()) }));
    assert_eq!(table.version(), DataVersion { counter: 1, state_version: 0, timestamp: NOW + 1 });
    let (again, change) = table.auto_create(&ask("orders", "TBW102"), NOW + 2).unwrap();
    assert_eq!((again, change), (config, None));
    let many = AutoCreate { queue_nums: 100, unit_mode: true, ..ask("wide", "TBW102") };
    let (config, _) = table.auto_create(&many, NOW).unwrap();
    assert_eq!((config.write_queue_nums, config.topic_sys_flag), (8, SYS_FLAG_UNIT));
}

#[test]
fn a_send_without_a_default_topic_is_refused() {
    let mut table = TopicTable::new(&TopicSettings { auto_create_topic: false, ..settings() }, NOW);
    let refusal = table.auto_create(&ask("orders", "TBW102"), NOW).unwrap_err();
    assert_eq!(refusal.code, 17);
    assert_eq!(refusal.remark, format!("topic[orders] not exist, apply first please!{FAQ}"));
    // A topic without the INHERIT permission is no template either.
    assert_eq!(table.auto_create(&ask("orders", "BenchmarkTest"), NOW).unwrap_err().code, 17);
    // A retry topic needs no template.
    let (retry, _) = table.auto_create(&ask("%RETRY%g", "TBW102"), NOW).unwrap();
    assert_eq!((retry.read_queue_nums, retry.perm), (1, 6));
}

#[test]
fn admin_creates_changes_and_deletes() {
    let mut table = table();
    let fifo = TopicConfig {
        attributes: parse_attributes("+message.type=FIFO").unwrap(),
        order: true,
        ..topic_config("orders", 3, 6)
    };
    let created = table.upsert(vec![fifo], NOW).unwrap();
    assert_eq!(created.len(), 1);
    assert_eq!(table.get("orders").unwrap().attributes["message.type"], "FIFO");

    let same = TopicConfig { order: true, ..topic_config("orders", 3, 6) };
    let before = table.version();
    assert_eq!(table.upsert(vec![same], NOW + 5).unwrap(), vec![], "nothing changed: nothing is written");
    assert_eq!(table.version(), before);

    let deleted = table.delete("orders", NOW).unwrap().unwrap();
    assert_eq!(record(&deleted), MetaRecord { key: b"t/orders".to_vec(), value: None });
    assert!(table.get("orders").is_none());
    assert_eq!(table.delete("orders", NOW).unwrap(), None);
}

#[test]
fn a_list_is_taken_whole_or_not_at_all() {
    let mut table = table();
    let list = vec![topic_config("good", 1, 6), topic_config("b@d", 1, 6)];
    assert_eq!(table.upsert(list, NOW).unwrap_err().code, 29);
    assert!(table.get("good").is_none());
}

#[test]
fn refusals_are_javas() {
    let mut table = table();
    let mut upsert = |config| table.upsert(vec![config], NOW).unwrap_err();
    assert_eq!(upsert(topic_config("", 1, 6)), Refusal::invalid("The specified topic is blank."));
    assert_eq!(
        upsert(topic_config("TBW102", 1, 6)),
        Refusal::invalid("The topic[TBW102] is conflict with system topic.")
    );
    assert_eq!(upsert(topic_config("t", MAX_QUEUES + 1, 6)).code, 29);
    assert_eq!(upsert(topic_config("t", -1, 6)).code, 29);
    assert_eq!(table.delete(" ", NOW).unwrap_err(), Refusal::invalid("The specified topic is blank."));
    assert_eq!(
        table.delete("broker-a", NOW).unwrap_err(),
        Refusal::invalid("The topic[broker-a] is conflict with system topic.")
    );
}

#[test]
fn a_retry_topic_follows_the_order_flag_of_its_subscriptions() {
    let mut table = table();
    assert!(table.retry_topic("g", 2, false, true, NOW).is_some());
    let config = table.get("%RETRY%g").unwrap();
    assert_eq!((config.read_queue_nums, config.topic_sys_flag, config.order), (2, SYS_FLAG_UNIT_SUB, false));
    assert_eq!(table.retry_topic("g", 9, false, false, NOW), None);
    assert!(table.retry_topic("g", 9, true, false, NOW).is_some());
    let config = table.get("%RETRY%g").unwrap();
    assert_eq!((config.read_queue_nums, config.order), (2, true));
}

#[test]
fn the_order_configuration_of_a_name_server_marks_topics() {
    let mut table = table();
    table.upsert(vec![topic_config("a", 1, 6), topic_config("b", 1, 6)], NOW).unwrap();
    let topics = ["a", "unknown", "TBW102"];
    assert_eq!(table.mark_ordered(topics.into_iter(), NOW).len(), 1);
    assert!(table.get("a").unwrap().order && !table.get("b").unwrap().order);
    assert_eq!(table.mark_ordered(topics.into_iter(), NOW), vec![]);
}

#[test]
fn what_is_stored_comes_back() {
    let mut table = table();
    let config = TopicConfig { order: true, topic_sys_flag: 1, ..topic_config("orders", 5, 2) };
    let change = table.upsert(vec![config.clone()], NOW).unwrap().remove(0);
    let stored = record(&change);
    assert_eq!(stored.key, b"t/orders");
    let mut next = self::table();
    next.restore("orders", &stored.value.clone().unwrap()).unwrap();
    assert_eq!(**next.get("orders").unwrap(), config);
    let plain = topic_config("plain", 8, 6);
    let change = table.upsert(vec![plain.clone()], NOW).unwrap().remove(0);
    let short = record(&change).value.unwrap();
    assert_eq!(std::str::from_utf8(&short).unwrap(), r#"{"perm":6,"readQueueNums":8,"writeQueueNums":8}"#);
    next.restore("plain", &short).unwrap();
    assert_eq!(**next.get("plain").unwrap(), plain);
    // Earlier programs stored all of it.
    next.restore(
        "earlier",
        &serde_json::to_vec(&TopicConfig { topic_name: "earlier".into(), ..plain.clone() }).unwrap(),
    )
    .unwrap();
    assert_eq!(**next.get("earlier").unwrap(), TopicConfig { topic_name: "earlier".into(), ..plain });
    // A system topic stays as this start's options make it.
    next.restore("TBW102", &stored.value.unwrap()).unwrap();
    assert_eq!(next.get("TBW102").unwrap().read_queue_nums, 8);
    assert!(next.restore("x", b"{").is_err());
}

#[test]
fn pages_are_slices_by_name() {
    let mut table = table();
    let total = table.iter().len();
    table.upsert(vec![topic_config("0", 1, 6), topic_config("1", 1, 6)], NOW).unwrap();
    let names =
        |table: &TopicTable, page| table.page(&page).map(|c| c.topic_name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&table, Page::whole()).len(), total + 2);
    let page = Page { from: Some(1), max: Some(1), version: Some(table.version()) };
    assert_eq!(names(&table, page), ["1"]);
    let stale = Page { version: Some(DataVersion::default()), ..page };
    assert_eq!(names(&table, stale), ["0"], "another version starts again");
    let beyond = Page { from: Some(1000), ..page };
    assert!(names(&table, beyond).is_empty());
}
