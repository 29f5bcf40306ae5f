//! The binary as a process: how it starts, refuses to start, and stops.

#![allow(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

mod common;

use std::io::Read;
use std::time::{Duration, Instant};

use common::*;
use rustix::process::Signal;

/// Runs what must not start; its message.
fn refused(words: &[&str]) -> String {
    let output = output(words);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code().is_some_and(|code| code != 0), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    said
}

/// The data directory of a server that was started and stopped.
fn stopped_server() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::server(dir.path(), &[]);
    running.signal(Signal::TERM);
    running.end();
    dir
}

#[test]
fn a_name_server_says_where_it_is_and_stops_when_asked() {
    for signal in [Signal::TERM, Signal::INT] {
        let dir = tempfile::tempdir().unwrap();
        let running = Running::namesrv(dir.path());
        let addr = running.line("name server").to_owned();
        assert!(running.block.contains(&format!("boot success. serializeType=JSON, address {addr}\n")));
        assert_eq!(running.line("data"), dir.path().join("namesrv").to_str().unwrap());
        std::net::TcpStream::connect(&addr).unwrap();
        let asked = Instant::now();
        running.signal(signal);
        assert_eq!(running.end(), Some(0));
        assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
        assert!(std::net::TcpStream::connect(&addr).is_err());
    }
}

#[test]
fn a_second_process_is_told_whose_directory_and_port_it_wants() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::namesrv(dir.path());
    let pid = format!("process {}", running.child.id());
    let data = dir.path().to_str().unwrap();
    let said = refused(&["namesrv", "--namesrv-port", "0", "--data", data]);
    assert!(said.contains(&pid) && said.contains("another data directory"), "{said}");
    let port = running.line("name server").rsplit(':').next().unwrap().to_owned();
    let other = tempfile::tempdir().unwrap();
    let said = refused(&["namesrv", "--namesrv-port", &port, "--data", other.path().to_str().unwrap()]);
    assert!(said.contains(&pid) && said.contains("--namesrv-port"), "{said}");
}

#[test]
fn a_killed_process_leaves_no_lock_behind() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::namesrv(dir.path());
    running.signal(Signal::KILL);
    assert_eq!(running.end(), None);
    let running = Running::namesrv(dir.path());
    running.signal(Signal::TERM);
    assert_eq!(running.end(), Some(0));
}

#[test]
fn wrong_settings_are_told_in_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().to_str().unwrap();
    let file = dir.path().join("broker.conf");
    std::fs::write(&file, "brokerName=b\nflushDiskTyp=SYNC_FLUSH\n").unwrap();
    let config = file.to_str().unwrap();
    let cases: [(&[&str], &str); 6] = [
        (&["server", "--config", config], "unknown option \"flushDiskTyp\": did you mean \"flushDiskType\"?"),
        (&["server", "--config", "/no/such.conf"], "--config /no/such.conf: "),
        (&["server", "--memory", "1MiB"], "--memory: memory = \"1MiB\": the least is 64MiB"),
        (&["server", "--set", "aclEnable=true"], "aclEnable = \"true\" cannot be had"),
        (&["broker", "--port", "2"], "port 2: the VIP port is two below"),
        (&["namesrv", "--log-level", "=,"], "log-level"),
    ];
    for (words, expected) in cases {
        let said = refused(&[words, &["--data", data]].concat());
        assert!(said.starts_with("ringmq: ") && said.contains(expected), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}

#[test]
fn an_address_of_another_machine_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().to_str().unwrap();
    let said = refused(&["namesrv", "--bind", "192.0.2.1", "--data", data]);
    assert!(said.contains("cannot listen on 192.0.2.1:9876") && said.contains("--bind"), "{said}");
}

#[test]
fn a_directory_that_cannot_be_written_is_refused() {
    let said = refused(&["namesrv", "--data", "/proc/no"]);
    assert!(said.contains("cannot create the data directory /proc/no/namesrv"), "{said}");
}

#[test]
fn a_server_starts_stops_and_starts_again() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..3 {
        let running = Running::server(dir.path(), &["--cores", "2", "--shards", "3", "--memory", "256MiB"]);
        assert_eq!(running.line("cores"), "2, shards 3");
        assert_eq!(running.line("memory"), "at most 256MiB (as given)");
        let (broker, namesrv) = (running.line("broker"), running.line("name server"));
        let addr = broker.split(": ").next().unwrap();
        assert_eq!(running.line("clients"), format!("are told {addr}"));
        let last = format!(
            "The broker[broker-a, {addr}] boot success. serializeType=JSON and name server is {namesrv}\n"
        );
        assert!(running.block.ends_with(&last), "{}", running.block);
        std::net::TcpStream::connect(addr).unwrap();
        let asked = Instant::now();
        running.signal(Signal::TERM);
        assert_eq!(running.end(), Some(0));
        assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    }
}

#[test]
fn a_store_keeps_its_shards() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::server(dir.path(), &["--shards", "2"]);
    running.signal(Signal::KILL);
    running.end();
    let running = Running::server(dir.path(), &["--cores", "1"]);
    assert_eq!(running.line("cores"), "1, shards 2");
    running.signal(Signal::TERM);
    running.end();
    let data = dir.path().to_str().unwrap();
    let said = refused(&["broker", "--port", "0", "--shards", "3", "--data", data]);
    assert!(said.contains("has 2 shards, and keeps them"), "{said}");
}

#[test]
fn a_store_of_a_newer_version_is_refused() {
    let dir = stopped_server();
    let path = dir.path().join("store.meta");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[8] = 99;
    std::fs::write(&path, &bytes).unwrap();
    let start = ["broker", "--port", "0", "--data", dir.path().to_str().unwrap()];
    // The directory's name may have any digits.
    let refused = || refused(&start).replace(dir.path().to_str().unwrap(), "");
    let said = refused();
    assert!(said.contains("store.meta") && !said.contains("99"), "damage is no newer format: {said}");
    // docs/store-format.md: the checksum covers the file, its own field as zero.
    bytes[12..16].fill(0);
    let crc = crc32fast::hash(&bytes);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    std::fs::write(&path, &bytes).unwrap();
    let said = refused();
    assert!(said.contains("store.meta") && said.contains("99"), "{said}");
}

#[test]
fn an_inspection_sees_the_damage_of_every_table() {
    let dir = stopped_server();
    let inspect = |more: &[&str]| {
        let output = output(&[&["inspect", "--data", dir.path().to_str().unwrap()], more].concat());
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (status, said) = inspect(&[]);
    assert!(status == Some(0) && said.contains("topics, groups") && !said.contains("DAMAGE"), "{said}");

    let damage = |path: &str| {
        let path = dir.path().join(path);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[3] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
    };
    for (table, stops_repair) in [("shards/000/offsets.a", true), ("meta/meta.a", false)] {
        damage(table);
        let (status, said) = inspect(&[]);
        assert!(status == Some(1) && said.contains(table) && said.contains("DAMAGE"), "{said}");
        let (status, said) = inspect(&["--repair"]);
        assert!(status == Some(1) && said.is_empty() == stops_repair, "{said}");
        assert!(refused(&["broker", "--port", "0", "--data", dir.path().to_str().unwrap()]).contains(table));
        damage(table);
    }
    assert_eq!(inspect(&[]).0, Some(0));
}

#[test]
fn broker_and_name_server_do_not_share_a_port() {
    let dir = tempfile::tempdir().unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for namesrv in [free, free - 2] {
        let data = dir.path().to_str().unwrap();
        let (port, namesrv) = (free.to_string(), namesrv.to_string());
        let said = refused(&["server", "--data", data, "--port", &port, "--namesrv-port", &namesrv]);
        assert!(said.contains(&format!("port {namesrv} is the name server's")), "{said}");
    }
}

#[test]
fn a_port_that_a_broker_has_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::server(dir.path(), &[]);
    let port = running.line("broker").split(": ").next().unwrap().rsplit(':').next().unwrap().to_owned();
    let other = tempfile::tempdir().unwrap();
    let said = refused(&["broker", "--port", &port, "--data", other.path().to_str().unwrap()]);
    let pid = running.child.id();
    assert!(said.contains(&format!("process {pid} listens on 127.0.0.1:{port} already")), "{said}");
}

#[test]
fn version_and_settings_are_shown() {
    let version = String::from_utf8(output(&["--version"]).stdout).unwrap();
    assert_eq!(version, concat!("ringmq ", env!("CARGO_PKG_VERSION"), "\n"));
    let shown = output(&["config", "show", "broker", "--set", "listenPort=20911"]).stdout;
    let shown = String::from_utf8(shown).unwrap();
    assert!(shown.lines().any(|line| line == "listenPort=20911"), "{shown}");
    let mut page = String::new();
    ringmq(&["config", "docs"]).spawn().unwrap().stdout.unwrap().read_to_string(&mut page).unwrap();
    assert!(page.starts_with("# Configuration\n"));
}
