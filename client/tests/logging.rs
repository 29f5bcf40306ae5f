//! The client's log in a file of its own, with the settings of Java's ClientLogger. A program has one subscriber, so
//! this is one test in a program of its own.
#![allow(clippy::unwrap_used)] // helpers of tests
#![cfg(feature = "logging")]

use std::fs;
use std::path::Path;
use std::time::Duration;

use ringmq_client::logging::{LogSettings, LoggingError, init, init_from_env};
use ringmq_client::{Client, ClientConfig};

/// Bytes of a file before another is begun, and old files that are kept.
const MAX_SIZE: u64 = 4000;
const MAX_INDEX: u32 = 2;

/// What the variables say: the test runs itself again with them, for they must be there before any thread is.
const SETTINGS: [(&str, &str); 5] = [
    ("ROCKETMQ_CLIENT_LOG_FILE_NAME", "own.log"),
    ("ROCKETMQ_CLIENT_LOG_LEVEL", "info,ringmq_client::route=debug"),
    ("ROCKETMQ_CLIENT_LOG_FILE_MAX_SIZE", "4000"),
    ("ROCKETMQ_CLIENT_LOG_FILE_MAX_INDEX", "2"),
    ("ROCKETMQ_CLIENT_LOG_USE_SLF4J", "false"),
];

fn again(test: &str, variables: &[(&str, &str)]) {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--ignored"]).envs(variables.iter().copied());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn events_reach_the_file_which_rolls_by_size_and_count() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("logs");
    let mut variables = SETTINGS.to_vec();
    variables.push(("ROCKETMQ_CLIENT_LOG_ROOT", root.to_str().unwrap()));
    again("writes_much", &variables);

    let read = |name: &str| fs::read_to_string(root.join(name)).unwrap();
    let mut names: Vec<_> = fs::read_dir(&root).unwrap().map(|f| f.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["own.log", "own.log.1", "own.log.2"]);
    for name in ["own.log", "own.log.1", "own.log.2"] {
        let text = read(name);
        assert!(text.len() as u64 <= MAX_SIZE && text.ends_with('\n'), "{name} has {} bytes", text.len());
        assert!(!text.contains('\u{1b}') && !text.contains("too fine"), "{text}");
    }
    // The youngest events are in the file, older ones in the older files, and no event is lost in between.
    let all = ["own.log.2", "own.log.1", "own.log"].map(read).concat();
    let numbers: Vec<u32> =
        all.lines().filter_map(|line| line.rsplit_once("number=")?.1.parse().ok()).collect();
    assert!(numbers.windows(2).all(|two| two[0] + 1 == two[1]), "{numbers:?}");
    assert_eq!((numbers.last(), numbers.len() > 50), (Some(&499), true));
    // The client's own, of the part whose level is finer.
    assert!(all.contains("on to the next name server") && all.contains("ringmq_client::route"), "{all}");
}

#[test]
fn a_program_may_keep_its_logging_to_itself() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("logs");
    let variables =
        [("ROCKETMQ_CLIENT_LOG_USE_SLF4J", "true"), ("ROCKETMQ_CLIENT_LOG_ROOT", root.to_str().unwrap())];
    again("keeps_out", &variables);
    assert!(!root.exists());
}

#[test]
#[ignore = "run by another test, with its settings in the environment"]
fn writes_much() {
    let settings = LogSettings::from_env().unwrap();
    assert_eq!((settings.max_size, settings.max_index), (MAX_SIZE, MAX_INDEX));
    init_from_env().unwrap();
    assert!(matches!(init(&settings), Err(LoggingError::Taken(_))));
    for number in 0..500 {
        tracing::info!(number);
        tracing::debug!("too fine");
    }
    fail_to_find_a_route();
}

/// Nobody listens there, and the client says so at the level DEBUG.
fn fail_to_find_a_route() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut config = ClientConfig::new(&nobody.to_string());
        config.call_timeout = Duration::from_millis(500);
        let client = Client::connect(config).await.unwrap();
        client.admin().route("t").await.unwrap_err();
        client.shutdown().await;
    });
}

#[test]
#[ignore = "run by another test, with its settings in the environment"]
fn keeps_out() {
    init_from_env().unwrap();
    // So the program may have a subscriber of its own.
    let settings = LogSettings::from_env();
    assert_eq!(settings, None);
    tracing_subscriber::fmt().with_test_writer().init();
    tracing::info!("the program's own");
}

#[test]
fn what_cannot_be_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "not a directory").unwrap();
    let mut settings = LogSettings::default();
    settings.path = file.join("own.log");
    assert!(matches!(init(&settings), Err(LoggingError::File { path, .. }) if path == file.join("own.log")));
    settings.path = dir.path().join("own.log");
    settings.level = "loud=very".to_owned();
    assert!(matches!(init(&settings), Err(LoggingError::Level(level)) if level == "loud=very"));
    assert!(!Path::new(&settings.path).exists());
}
