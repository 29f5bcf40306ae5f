use super::*;

const C: &str = "DefaultCluster";

fn at(seconds: u64) -> Instant {
    Instant::default().after(Duration::from_secs(seconds))
}

fn queue(perm: i32) -> QueueData {
    QueueData { read_queue_nums: 8, write_queue_nums: 8, perm, topic_sys_flag: 0 }
}

fn registration(name: &str, id: i64, addr: &str, topics: &[&str]) -> Registration {
    Registration {
        cluster: C.into(),
        broker_name: name.into(),
        broker_id: id,
        addr: addr.into(),
        ha_addr: format!("ha-{addr}"),
        zone: None,
        acting_master: Some(false),
        silence: DEFAULT_SILENCE,
        data_version: DataVersion { counter: 1, ..Default::default() },
        topics: topics.iter().map(|topic| (topic.to_string(), queue(6))).collect(),
        complete: false,
    }
}

fn register(tables: &mut RouteTables, r: Registration) -> Option<Master> {
    tables.register(r, ConnectionId(1), at(0)).unwrap()
}

fn departure(name: &str, addr: &str) -> Departure {
    Departure { cluster: C.into(), addr: addr.into(), broker_name: name.into() }
}

fn perms(tables: &RouteTables, topic: &str) -> Vec<i32> {
    tables.route(topic).unwrap().queues.iter().map(|(_, queue)| queue.perm).collect()
}

#[test]
fn a_route_holds_queues_and_addresses_of_every_broker_of_the_topic() {
    let mut tables = RouteTables::default();
    register(&mut tables, registration("b", 0, "b:1", &["T", "U"]));
    register(&mut tables, registration("a", 0, "a:1", &["T", "V"]));
    register(&mut tables, registration("a", 1, "a:2", &["T", "V"]));
    let route = tables.route("T").unwrap();
    assert_eq!(route.queues.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(route.brokers[0].1.addrs, BTreeMap::from([(0, "a:1".into()), (1, "a:2".into())]));
    assert_eq!(tables.route("U").unwrap().brokers.len(), 1);
    assert_eq!(tables.route("none"), None);
    assert_eq!(tables.all_topics(), ["T", "U", "V"]);
}

#[test]
fn one_topic_of_an_unknown_broker_is_rejected_and_leaves_nothing() {
    let mut tables = RouteTables::default();
    let rejected = tables.register(registration("a", 0, "a:1", &["T"]), ConnectionId(1), at(0));
    assert_eq!(rejected, Err(Rejected));
    assert!(tables.brokers.is_empty() && tables.clusters.is_empty() && tables.live.is_empty());
    register(&mut tables, registration("a", 0, "a:1", &["T", "U"]));
    let mut one = registration("a", 0, "a:1", &["W"]);
    one.data_version.counter = 2;
    register(&mut tables, one);
    assert_eq!(tables.all_topics(), ["T", "U", "W"]);
}

#[test]
fn topics_change_only_with_the_data_version() {
    let mut tables = RouteTables::default();
    register(&mut tables, registration("a", 0, "a:1", &["T", "U"]));
    assert_eq!(tables.wipe_write_perm("a"), 2);
    register(&mut tables, registration("a", 0, "a:1", &["T", "U", "V"]));
    assert_eq!((perms(&tables, "T"), perms(&tables, "V")), (vec![4], vec![6]));
    let mut newer = registration("a", 0, "a:1", &["T", "U"]);
    newer.data_version.counter = 2;
    register(&mut tables, newer);
    assert_eq!(perms(&tables, "T"), [6]);
}

#[test]
fn permissions_are_wiped_and_given_back() {
    let mut tables = RouteTables::default();
    register(&mut tables, registration("a", 0, "a:1", &["T", "U"]));
    register(&mut tables, registration("b", 0, "b:1", &["T", "U"]));
    assert_eq!((tables.wipe_write_perm("a"), perms(&tables, "T")), (2, vec![4, 6]));
    assert_eq!((tables.add_write_perm("a"), perms(&tables, "T")), (2, vec![6, 6]));
    assert_eq!(tables.wipe_write_perm("none"), 0);
}

#[test]
fn a_slave_learns_its_live_master_and_does_not_set_topics() {
    let mut tables = RouteTables::default();
    assert_eq!(register(&mut tables, registration("a", 0, "a:1", &["T", "U"])), None);
    let master = register(&mut tables, registration("a", 1, "a:2", &["T", "X"]));
    assert_eq!(master, Some(Master { addr: "a:1".into(), ha_addr: "ha-a:1".into() }));
    assert_eq!(tables.route("X"), None);
}

#[test]
fn the_lowest_slave_stands_in_without_write_permission() {
    let mut tables = RouteTables::default();
    let acting = |id, addr: &str| Registration {
        acting_master: Some(true),
        ..registration("a", id, addr, &["T", "U"])
    };
    register(&mut tables, acting(0, "a:1"));
    register(&mut tables, acting(1, "a:2"));
    tables.unregister(&departure("a", "a:1"));
    assert_eq!(perms(&tables, "T"), [4]);
    let mut fresh = RouteTables::default();
    register(&mut fresh, acting(1, "a:2"));
    assert_eq!(perms(&fresh, "T"), [4]);
}

#[test]
fn an_address_that_changes_its_role_stands_once() {
    let mut tables = RouteTables::default();
    register(&mut tables, registration("a", 0, "a:1", &["T", "U"]));
    register(&mut tables, registration("a", 1, "a:2", &["T", "U"]));
    register(&mut tables, registration("a", 0, "a:2", &["T", "U"]));
    assert_eq!(tables.broker("a").unwrap().addrs, BTreeMap::from([(0, "a:2".into())]));
}

#[test]
fn a_stale_holder_of_an_id_does_not_take_it_back() {
    let mut tables = RouteTables::default();
    let mut leader = registration("a", 0, "a:1", &["T", "U"]);
    leader.data_version.state_version = 5;
    register(&mut tables, leader);
    register(&mut tables, registration("a", 0, "a:9", &["T", "U"]));
    assert_eq!(tables.broker("a").unwrap().addrs, BTreeMap::from([(0, "a:1".into())]));
    assert_eq!(tables.data_version(C, "a:9"), None);
}

#[test]
fn the_last_address_takes_the_broker_its_cluster_and_its_topics_along() {
    let mut tables = RouteTables::default();
    register(&mut tables, registration("a", 0, "a:1", &["T", "U"]));
    register(&mut tables, registration("b", 0, "b:1", &["T", "V"]));
    tables.unregister(&departure("a", "a:1"));
    assert_eq!(tables.all_topics(), ["T", "V"]);
    tables.unregister(&departure("a", "a:1"));
    tables.unregister(&departure("b", "b:1"));
    assert!(tables.topics.is_empty() && tables.clusters.is_empty() && tables.live.is_empty());
}

#[test]
fn silence_and_closed_connections_are_found() {
    let mut tables = RouteTables::default();
    tables.register(registration("a", 0, "a:1", &["T", "U"]), ConnectionId(1), at(0)).unwrap();
    let mut short = registration("b", 0, "b:1", &["T", "U"]);
    short.silence = Duration::from_secs(10);
    tables.register(short, ConnectionId(2), at(0)).unwrap();
    assert_eq!(tables.silent(at(10)), []);
    assert_eq!(tables.silent(at(11)), [departure("b", "b:1")]);
    tables.heartbeat(C, "b:1", at(11));
    assert_eq!(tables.silent(at(21)), []);
    assert_eq!(tables.silent(at(121)).len(), 2);
    assert_eq!(tables.registered_over(ConnectionId(1)), [departure("a", "a:1")]);
    assert_eq!(tables.registered_over(ConnectionId(3)), []);
}

#[test]
fn a_broker_that_came_back_over_another_connection_survives_the_end_of_the_first() {
    let mut tables = RouteTables::default();
    tables.register(registration("a", 0, "a:1", &["T", "U"]), ConnectionId(1), at(0)).unwrap();
    tables.register(registration("a", 0, "a:1", &["T", "U"]), ConnectionId(2), at(1)).unwrap();
    assert_eq!(tables.registered_over(ConnectionId(1)), []);
}

#[test]
fn versions_are_compared_as_a_whole() {
    let mut tables = RouteTables::default();
    register(&mut tables, registration("a", 0, "a:1", &["T", "U"]));
    let same = DataVersion { counter: 1, ..Default::default() };
    assert!(!tables.version_changed(C, "a:1", &same));
    assert!(tables.version_changed(C, "a:1", &DataVersion { timestamp: 1, ..same }));
    assert!(tables.version_changed(C, "none:1", &same));
}

#[test]
fn topics_are_deleted_everywhere_or_in_one_cluster() {
    let mut tables = RouteTables::default();
    register(&mut tables, registration("a", 0, "a:1", &["T", "U"]));
    register(&mut tables, Registration { cluster: "D".into(), ..registration("b", 0, "b:1", &["T", "U"]) });
    tables.delete_topic("T", Some("D"));
    assert_eq!(tables.route("T").unwrap().brokers.len(), 1);
    tables.delete_topic("U", None);
    tables.delete_topic("T", Some(C));
    assert_eq!((tables.all_topics(), tables.topics_of_cluster(C)), (vec![], vec![]));
}

#[test]
fn a_topic_has_its_brokers_in_order_whoever_came_first() {
    let mut tables = RouteTables::default();
    for name in ["c", "a", "b", "a"] {
        register(&mut tables, registration(name, 0, &format!("{name}:1"), &["T", "U"]));
    }
    let names = |tables: &RouteTables| {
        let route = tables.route("T").unwrap();
        let queues: Vec<String> = route.queues.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(route.brokers.iter().map(|(name, _)| *name).collect::<Vec<_>>(), queues);
        queues.concat()
    };
    assert_eq!(names(&tables), "abc");
    let leaves =
        |name: &str| Departure { cluster: C.into(), addr: format!("{name}:1"), broker_name: name.into() };
    tables.unregister(&leaves("b"));
    assert_eq!(names(&tables), "ac");
    assert_eq!((tables.wipe_write_perm("c"), tables.wipe_write_perm("b")), (2, 0));
}

#[test]
fn an_administrator_adds_queues_of_known_brokers_only() {
    let mut tables = RouteTables::default();
    register(&mut tables, registration("a", 0, "a:1", &["T", "U"]));
    tables.register_topic("W", [("a".into(), queue(6)), ("x".into(), queue(6))]);
    tables.register_topic("X", [("x".into(), queue(6))]);
    assert_eq!(tables.route("W").unwrap().queues.len(), 1);
    assert_eq!(tables.route("X"), None);
}

#[test]
fn a_full_registration_may_drop_what_it_does_not_name() {
    let mut tables = RouteTables::default();
    register(&mut tables, registration("a", 0, "a:1", &["T", "U"]));
    register(&mut tables, Registration { complete: true, ..registration("a", 0, "a:1", &["U", "V"]) });
    assert_eq!(tables.all_topics(), ["U", "V"]);
}

#[test]
fn zones_hide_other_brokers_but_none_without_a_master() {
    let mut tables = RouteTables::default();
    let zoned = |name: &str, id, zone: &str| Registration {
        zone: Some(zone.into()),
        ..registration(name, id, &format!("{name}:1"), &["T", "U"])
    };
    register(&mut tables, zoned("a", 0, "z1"));
    register(&mut tables, zoned("b", 0, "z2"));
    register(&mut tables, zoned("c", 1, "z3"));
    let mut route = tables.route("T").unwrap();
    route.keep_zone("Z1");
    assert_eq!(route.brokers.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["a", "c"]);
    assert_eq!(route.queues.len(), 2);
}

#[test]
fn lists_follow_flags_and_clusters() {
    let mut tables = RouteTables::default();
    let mut r = registration("a", 0, "a:1", &["N"]);
    for (topic, flag) in [("unit", 1), ("sub", 2), ("both", 3)] {
        r.topics.insert(topic.into(), QueueData { topic_sys_flag: flag, ..queue(6) });
    }
    register(&mut tables, r);
    assert_eq!(tables.unit_topics(UnitFilter::Unit), ["both", "unit"]);
    assert_eq!(tables.unit_topics(UnitFilter::UnitSub), ["both", "sub"]);
    assert_eq!(tables.unit_topics(UnitFilter::UnitSubNotUnit), ["sub"]);
    let system = tables.system_topics();
    assert_eq!((system.names, system.broker_addr), (vec![C.to_owned(), "a".into()], Some("a:1".into())));
}
