//! Our strategies against Java's own: a checked-in file of its answers, and fresh ones of generated cases when
//! `RINGMQ_TEST_JAVA_LIB` names a directory with the jars of rocketmq-client 5.5.0 and what it depends on.

#![allow(clippy::unwrap_used)] // helpers of tests

use std::process::Command;

use ringmq_client::MessageQueue;
use ringmq_client::allocate::{
    AllocateStrategy, Averagely, AveragelyByCircle, ByConfig, ByMachineRoom, ConsistentHash,
    MachineRoomNearby, MachineRoomResolver, Members,
};

/// Cases that the differential run generates.
const CASES: usize = 7_000;

#[derive(Debug)]
struct FirstPiece;

impl MachineRoomResolver for FirstPiece {
    fn broker_room(&self, queue: &MessageQueue) -> Option<String> {
        self.client_room(&queue.broker_name)
    }

    fn client_room(&self, client_id: &str) -> Option<String> {
        client_id.split('@').next().map(str::to_owned)
    }
}

fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').filter(|piece| !piece.is_empty())
}

fn queues(topic: &str, text: &str) -> Vec<MessageQueue> {
    let queue = |piece: &str| {
        let (broker, id) = piece.split_once('/').unwrap();
        MessageQueue {
            broker_name: broker.to_owned(),
            queue_id: id.parse().unwrap(),
            topic: topic.to_owned(),
        }
    };
    list(text).map(queue).collect()
}

fn strategy(name: &str, parameter: &str, topic: &str) -> Box<dyn AllocateStrategy> {
    match name {
        "AVG" => Box::new(Averagely),
        "AVG_BY_CIRCLE" => Box::new(AveragelyByCircle),
        "CONFIG" => Box::new(ByConfig { queues: queues(topic, parameter) }),
        "MACHINE_ROOM" => Box::new(ByMachineRoom { rooms: list(parameter).map(str::to_owned).collect() }),
        "MACHINE_ROOM_NEARBY-AVG" => Box::new(MachineRoomNearby { inner: Averagely, resolver: FirstPiece }),
        "MACHINE_ROOM_NEARBY-AVG_BY_CIRCLE" => {
            Box::new(MachineRoomNearby { inner: AveragelyByCircle, resolver: FirstPiece })
        }
        "CONSISTENT_HASH" => Box::new(ConsistentHash { virtual_nodes: parameter.parse().unwrap() }),
        other => panic!("unknown strategy {other}"),
    }
}

/// Checks every line of the Java program's output; returns how many there were.
fn check(answers: &str) -> usize {
    for line in answers.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        let [name, parameter, client_id, clients, topic, all, expected] = fields[..] else {
            panic!("not seven fields: {line}")
        };
        let strategy = strategy(name, parameter, topic);
        assert_eq!(strategy.name(), name);
        let clients: Vec<String> = list(clients).map(str::to_owned).collect();
        let members = Members { group: "group", client_id, queues: &queues(topic, all), clients: &clients };
        assert_eq!(strategy.allocate(&members).unwrap(), queues(topic, expected), "{line}");
    }
    answers.lines().count()
}

#[test]
fn golden_answers() {
    assert_eq!(check(include_str!("golden/allocations.tsv")), 280);
}

#[test]
fn generated_cases_against_java() {
    let Ok(lib) = std::env::var("RINGMQ_TEST_JAVA_LIB") else {
        return eprintln!("skipped: RINGMQ_TEST_JAVA_LIB is not set");
    };
    let seed = std::process::id().to_string();
    let output = Command::new("java")
        .args(["-cp", &format!("{lib}/*"), "tests/java/Allocations.java", &seed, &CASES.to_string()])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(check(&String::from_utf8(output.stdout).unwrap()), CASES, "seed {seed}");
}
