use super::*;

const NOW: i64 = 1_700_000_000_000;

fn table() -> GroupTable {
    GroupTable::new(true, NOW)
}

#[test]
fn a_new_broker_has_the_system_groups() {
    let table = table();
    assert_eq!(table.iter().len(), 8);
    let tools = table.get("TOOLS_CONSUMER").unwrap();
    assert!(tools.consume_enable && tools.consume_broadcast_enable);
    assert_eq!((tools.retry_queue_nums, tools.retry_max_times, tools.consume_timeout_minute), (1, 16, 15));
}

#[test]
fn a_heartbeat_creates_its_group_where_that_is_allowed() {
    let mut table = table();
    let (config, change) = table.find_or_create("g", NOW + 1).unwrap();
    assert_eq!(change, Some(Change::Group { name: "g".into(), config: Some(config.clone()) }));
    assert_eq!(table.version().counter, 1);
    assert_eq!(table.find_or_create("g", NOW + 2).unwrap(), (config, None));
    assert!(table.find_or_create("b@d", NOW).is_none());
    assert!(table.find_or_create(&"g".repeat(121), NOW).is_none());

    let mut closed = GroupTable::new(false, NOW);
    assert!(closed.find_or_create("g", NOW).is_none());
    assert!(closed.find_or_create("CID_RMQ_SYS_x", NOW).is_some());
}

#[test]
fn admin_creates_changes_and_deletes() {
    let mut table = table();
    let config = SubscriptionGroupConfig { retry_max_times: 3, ..default_config("g") };
    let change = table.upsert(vec![config.clone()], NOW).unwrap().remove(0);
    assert_eq!(table.upsert(vec![config.clone()], NOW).unwrap(), vec![]);

    let stored = change.meta_record().unwrap();
    assert_eq!(stored.key, b"g/g");
    let mut next = self::table();
    next.restore("g", &stored.value.unwrap()).unwrap();
    assert_eq!(**next.get("g").unwrap(), config);

    assert_eq!(table.delete("g", NOW), [Change::Group { name: "g".into(), config: None }]);
    assert_eq!(table.delete("g", NOW), []);
}

#[test]
fn refusals_are_javas() {
    let mut table = table();
    let list = vec![default_config("good"), default_config("")];
    assert_eq!(table.upsert(list, NOW).unwrap_err(), Refusal::invalid("The specified group is blank."));
    assert!(table.get("good").is_none(), "all or none");
    let attributes = [("+priority.factor".to_owned(), "1".to_owned())].into();
    let config = SubscriptionGroupConfig { attributes, ..default_config("g") };
    assert_eq!(table.upsert(vec![config], NOW).unwrap_err().remark, "unsupported key: priority.factor");
}

#[test]
fn describing_a_group_creates_nothing() {
    let table = table();
    assert_eq!(table.describe("unknown").unwrap().group_name, "unknown");
    assert!(table.get("unknown").is_none());
    let closed = GroupTable::new(false, NOW);
    let refusal = closed.describe("unknown").unwrap_err();
    assert_eq!((refusal.code, refusal.remark.as_str()), (26, "No group in this broker"));
}

#[test]
fn a_group_may_be_forbidden_a_topic() {
    let mut table = table();
    let change = table.forbid("g", "t", true, NOW).unwrap().unwrap();
    assert!(table.is_forbidden("g", "t") && !table.is_forbidden("g", "u") && !table.is_forbidden("h", "t"));
    assert_eq!(table.forbid("g", "t", true, NOW).unwrap(), None);
    assert!(table.forbid("g", "a b", true, NOW).is_err() && table.forbid("", "t", true, NOW).is_err());
    let record = change.meta_record().unwrap();
    assert_eq!(record.key, b"f/g");
    let mut again = self::table();
    again.restore_forbidden("g", &record.value.unwrap()).unwrap();
    assert_eq!(again.forbidden_table(), table.forbidden_table());
    let allowed = again.forbid("g", "t", false, NOW).unwrap().unwrap();
    assert_eq!(allowed.meta_record().unwrap().value, None);
    assert_eq!(again.forbidden_table().len(), 0);

    table.find_or_create("g", NOW);
    assert_eq!(table.delete("g", NOW).len(), 2, "what a deleted group may not read goes with it");
    assert!(!table.is_forbidden("g", "t"));
}
