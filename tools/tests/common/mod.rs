//! The binary as a process.

#![allow(dead_code, reason = "each test uses some of it")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

pub const LIMIT: Duration = Duration::from_secs(30);

pub fn ringmq(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringmq"));
    command.args(words).stdout(Stdio::piped()).stderr(Stdio::piped());
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("RINGMQ_")) {
        command.env_remove(name);
    }
    command
}

/// A program that has printed its ready block.
pub struct Running {
    pub child: Child,
    _stdout: BufReader<ChildStdout>,
    pub block: String,
}

impl Running {
    /// Starts the program, and waits for `last`, which stands in the block's last line.
    pub fn start(words: &[&str], last: &'static str) -> Running {
        let mut child = ringmq(words).stderr(Stdio::inherit()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let (ready, told) = mpsc::channel();
        std::thread::spawn(move || {
            let mut block = String::new();
            while !block.lines().last().is_some_and(|line| line.contains(last)) {
                if stdout.read_line(&mut block).unwrap() == 0 {
                    break;
                }
            }
            let _ = ready.send((block, stdout));
        });
        let (block, stdout) = told.recv_timeout(LIMIT).expect("it gets ready in time");
        assert!(block.contains(last), "it ended: {block}");
        Running { child, _stdout: stdout, block }
    }

    pub fn namesrv(data: &Path) -> Running {
        Running::start(&["namesrv", "--namesrv-port", "0", "--data", data.to_str().unwrap()], "boot success")
    }

    pub fn server(data: &Path, more: &[&str]) -> Running {
        let ports = ["server", "--namesrv-port", "0", "--port", "0", "--set", "segment-size=64MiB"];
        let words = [&ports, more, &["--data", data.to_str().unwrap()]].concat();
        Running::start(&words, "The broker[")
    }

    /// What stands behind `name` in the block.
    pub fn line(&self, name: &str) -> &str {
        let line = self.block.lines().find_map(|line| line.trim_start().strip_prefix(name));
        line.unwrap_or_else(|| panic!("no {name} in {}", self.block)).trim()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for the end; the exit status, if it was no signal.
    pub fn end(mut self) -> Option<i32> {
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < deadline, "it ends in time");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Fails when it has ended, which is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn output(words: &[&str]) -> Output {
    let mut child = ringmq(words).spawn().unwrap();
    let deadline = Instant::now() + LIMIT;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    child.wait_with_output().unwrap()
}
