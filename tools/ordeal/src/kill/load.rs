//! The load during which the broker is killed: producers, a reader, and a committer of consumer offsets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use super::message::{self, MessageNumber};
use crate::wire::{Client, Stored};

/// Topic of the loop.
pub const TOPIC: &str = "KillLoop";
/// Queues of the topic, as the broker creates it for the first send.
pub const QUEUES: u32 = 8;

/// What one round's clients saw before the broker was killed.
#[derive(Default)]
pub struct Observed {
    /// Acknowledged sends.
    pub acknowledged: Vec<(Stored, MessageNumber)>,
    /// Messages that a reader was given.
    pub read: Vec<(Stored, MessageNumber)>,
    /// Acknowledged commits of consumer offsets, with the time of the answer.
    pub commits: Vec<(u32, i64, Instant)>,
    /// Anything that should not have happened.
    pub complaints: Vec<String>,
}

/// Running clients.
pub struct Load {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Observed>>,
}

impl Load {
    /// Starts `producers` connections that send one message after another, and one that reads and commits from
    /// `read_from` (one offset for each queue).
    pub fn start(addr: SocketAddr, producers: u32, first_sender: u32, read_from: Vec<i64>) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads: Vec<_> = (0..producers)
            .map(|index| {
                let (stop, sender) = (Arc::clone(&stop), first_sender + index);
                std::thread::spawn(move || produce(addr, sender, &stop))
            })
            .collect();
        let reader_stop = Arc::clone(&stop);
        threads.push(std::thread::spawn(move || read(addr, read_from, &reader_stop)));
        Load { stop, threads }
    }

    /// Waits for the clients, whose connections are dead by now.
    pub fn finish(self) -> Observed {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Observed::default();
        for thread in self.threads {
            match thread.join() {
                Ok(mut seen) => {
                    all.acknowledged.append(&mut seen.acknowledged);
                    all.read.append(&mut seen.read);
                    all.commits.append(&mut seen.commits);
                    all.complaints.append(&mut seen.complaints);
                }
                Err(_) => all.complaints.push("a client thread panicked".to_owned()),
            }
        }
        all
    }
}

fn produce(addr: SocketAddr, sender: u32, stop: &AtomicBool) -> Observed {
    let mut seen = Observed::default();
    let Ok(mut client) = Client::connect(addr) else { return seen };
    for sequence in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let number = MessageNumber { sender, sequence };
        // An error is the kill: whether this message was stored is open.
        let Ok(stored) = client.send(TOPIC, (sender + sequence) % QUEUES, &message::body(number)) else {
            break;
        };
        seen.acknowledged.push((stored, number));
    }
    seen
}

fn read(addr: SocketAddr, mut next: Vec<i64>, stop: &AtomicBool) -> Observed {
    let mut seen = Observed::default();
    let Ok(mut client) = Client::connect(addr) else { return seen };
    while !stop.load(Ordering::Relaxed) {
        for queue in 0..QUEUES {
            let at = &mut next[queue as usize];
            let Ok(pulled) = client.pull(TOPIC, queue, *at) else { return seen };
            for (offset, body) in pulled.messages {
                match message::recognise(&body) {
                    Some(number) => seen.read.push((Stored { queue, offset }, number)),
                    None => seen
                        .complaints
                        .push(format!("queue {queue} offset {offset}: not a body that was sent")),
                }
                *at = offset + 1;
            }
            if client.commit_offset(TOPIC, queue, *at).is_err() {
                return seen;
            }
            seen.commits.push((queue, *at, Instant::now()));
        }
    }
    seen
}
