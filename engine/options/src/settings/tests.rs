use super::*;

fn broker() -> Settings {
    Settings::new(Role::Broker)
}

#[test]
fn every_default_parses_and_every_name_is_unique() {
    for role in [Role::Server, Role::Broker, Role::Namesrv] {
        let settings = Settings::new(role);
        let mut names: Vec<&str> = settings.settings.iter().map(|s| s.option.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), settings.settings.len());
    }
    for option in OPTIONS {
        assert_eq!(option.default.is_empty(), !option.unset_means.is_empty(), "{}", option.name);
        assert!(option.doc.ends_with('.'), "{}", option.name);
    }
}

#[test]
fn later_sources_win_in_whatever_order_they_are_applied() {
    let mut settings = broker();
    settings.apply_set("port=4").unwrap();
    settings.apply_environment([("RINGMQ_PORT".to_owned(), "3".to_owned())]).unwrap();
    settings.apply_file(Path::new("a.toml"), "port = 2\nname = \"file\"").unwrap();
    assert_eq!((settings.integer::<u16>("port"), settings.source("port")), (4, Source::CommandLine));
    assert_eq!((settings.text("name"), settings.source("name")), ("file", Source::File));
    assert_eq!(settings.source("cluster"), Source::Default);
}

#[test]
fn java_names_and_values_work_everywhere() {
    let mut settings = broker();
    let file =
        "brokerName=b\nflushDiskType = ASYNC_FLUSH\nmaxMessageSize=65536\nsendMessageThreadPoolNums=16\n";
    settings.apply_file(Path::new("broker.conf"), file).unwrap();
    settings.apply_set("listenPort=20911").unwrap();
    assert_eq!((settings.text("name"), settings.choice("flush")), ("b", "async"));
    assert_eq!((settings.size("max-message-size"), settings.integer::<u16>("port")), (65536, 20911));
    assert_eq!(settings.warnings().len(), 1);
    assert!(
        settings.warnings()[0].contains("sendMessageThreadPoolNums has no effect: RingMQ runs one thread")
    );
}

#[test]
fn the_port_of_java_is_the_one_of_the_program() {
    let mut server = Settings::new(Role::Server);
    server.apply_set("listenPort=1").unwrap();
    assert_eq!((server.integer::<u16>("port"), server.integer::<u16>("namesrv-port")), (1, 9876));
    let mut namesrv = Settings::new(Role::Namesrv);
    namesrv.apply_set("listenPort=2").unwrap();
    assert_eq!(namesrv.integer::<u16>("namesrv-port"), 2);
}

#[test]
fn unknown_keys_are_refused_with_the_nearest_name() {
    let error = broker().apply_set("brokrName=x").unwrap_err();
    assert_eq!(error.to_string(), "--set: unknown option \"brokrName\": did you mean \"brokerName\"?");
    let error = broker().apply_set("flsh=sync").unwrap_err();
    assert!(error.to_string().ends_with("did you mean \"flush\"?"), "{error}");
    let error = broker().apply_set("zzzzqq=1").unwrap_err();
    assert_eq!(error.to_string(), "--set: unknown option \"zzzzqq\"");
    assert_eq!(broker().apply_set("port").unwrap_err(), SettingError::NoEquals("port".into()));
}

#[test]
fn wrong_values_name_place_limit_and_value() {
    let error = broker().apply_file(Path::new("b.conf"), "memory = \"1MiB\"").unwrap_err();
    assert_eq!(error.to_string(), "b.conf: memory = \"1MiB\": the least is 64MiB");
    let error = broker().apply_set("flushDiskType=LATER").unwrap_err();
    assert_eq!(error.to_string(), "--set: flushDiskType = \"LATER\": expected one of: sync, async");
    let error = broker().apply_set("aclEnable=true").unwrap_err();
    assert!(error.to_string().contains("aclEnable = \"true\" cannot be had: access control"), "{error}");
}

#[test]
fn options_of_another_program_are_told_about() {
    let mut namesrv = Settings::new(Role::Namesrv);
    namesrv.apply_set("flush=sync").unwrap();
    assert!(namesrv.warnings()[0].contains("`ringmq namesrv` has no use for it"));
    assert!(!namesrv.has("flush") && namesrv.has("bind"));
}

#[test]
fn environment_of_java_counts_less_than_our_own() {
    let java = ("NAMESRV_ADDR".to_owned(), "a:1".to_owned());
    let own = ("RINGMQ_NAMESRV".to_owned(), "b:2;c:3".to_owned());
    let mut settings = broker();
    settings.apply_environment([java.clone()]).unwrap();
    assert_eq!(settings.addresses("namesrv"), ["a:1"]);
    let mut settings = broker();
    settings.apply_environment([own, java]).unwrap();
    assert_eq!(settings.addresses("namesrv"), ["b:2", "c:3"]);
    let unknown = ("RINGMQ_PROT".to_owned(), "1".to_owned());
    settings.apply_environment([unknown]).unwrap();
    assert_eq!(settings.warnings(), ["RINGMQ_PROT: no option has this variable"]);
}

#[test]
fn updates_only_touch_what_may_change_while_running() {
    let mut settings = Settings::new(Role::Namesrv);
    settings.update("scanNotActiveBrokerInterval", "1000").unwrap();
    assert_eq!(settings.duration("broker-scan-interval"), Duration::from_secs(1));
    assert_eq!(settings.update("bind", "0.0.0.0"), Err(SettingError::NeedsRestart("bind")));
    assert!(settings.update("nonsense", "1").is_err());
}

#[test]
fn properties_of_java_hold_every_value_and_read_back() {
    let mut settings = Settings::new(Role::Server);
    settings.apply_set("flush=async").unwrap();
    settings.apply_set("fileReservedTime=48").unwrap();
    let text = settings.java_properties();
    for line in [
        "flushDiskType=ASYNC_FLUSH",
        "maxMessageSize=4194304",
        "fileReservedTime=48",
        "serverChannelMaxIdleTimeSeconds=120",
        "listenPort=10911",
        "namesrv-port=9876",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
    }
    let mut again = Settings::new(Role::Server);
    again.apply_file(Path::new("x.properties"), &text).unwrap();
    assert_eq!(again.java_properties(), text);
}
