//! What the machine allows: synchronous writes and sequential reads of the device, copying memory, CRC32. Device
//! limits come from `fio` where it is installed, else from a loop of our own.

use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rustix::fs::OFlags;

use crate::load::{Latency, Recorder};

const ALIGNMENT: usize = 4096;
/// The file that device limits are measured on; written in full beforehand, as RingMQ's segments are.
const FILE_BYTES: u64 = 1 << 30;
const CHUNK: usize = 1 << 20;
/// Files that fio is told of at once: it takes 4096 bytes of names.
const FILES_AT_ONCE: usize = 16;
/// fio's own engine and depth for sequential reads.
const READ_DEPTH: usize = 4;

/// A rate of the device.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct DeviceRate {
    /// What was done, and by what.
    pub what: String,
    /// Bytes of each request.
    pub block: usize,
    /// Bytes a second.
    pub bytes_per_second: f64,
}

/// Files that were read once, from their beginning to their end.
#[derive(Clone, Debug)]
pub struct FilesRead {
    /// How, and by what.
    pub what: String,
    /// Bytes of all files.
    pub bytes: u64,
    /// Bytes a second.
    pub bytes_per_second: f64,
}

/// A file to measure on; removed when dropped.
pub struct Probe {
    path: PathBuf,
    fio: bool,
}

impl Probe {
    /// Writes the file below `dir`.
    pub fn new(dir: &Path) -> anyhow::Result<Probe> {
        let probe = Probe { path: dir.join("probe"), fio: has_fio() };
        let file = open(&probe.path, OFlags::empty())?;
        let buffer = Aligned::new(CHUNK);
        for at in (0..FILE_BYTES).step_by(CHUNK) {
            rustix::io::pwrite(&file, buffer.bytes(), at)?;
        }
        file.sync_all()?;
        Ok(probe)
    }

    /// Sequential direct writes of `block` bytes, each on the device (O_DSYNC) before the next.
    pub fn sync_writes(&self, block: usize, time: Duration) -> anyhow::Result<DeviceRate> {
        let bytes_per_second = if self.fio {
            self.fio(&["--rw=write", "--sync=dsync", "--ioengine=psync"], block, time, "write")?
        } else {
            let file = open(&self.path, OFlags::DSYNC)?;
            let buffer = Aligned::new(block);
            repeat(block, time, |at| Ok(rustix::io::pwrite(&file, buffer.bytes(), at)?))?
        };
        Ok(DeviceRate { what: format!("direct O_DSYNC write ({})", self.tool()), block, bytes_per_second })
    }

    /// Sequential direct reads.
    pub fn reads(&self, block: usize, time: Duration) -> anyhow::Result<DeviceRate> {
        let bytes_per_second = if self.fio {
            let depth = format!("--iodepth={READ_DEPTH}");
            self.fio(&["--rw=read", "--ioengine=io_uring", &depth], block, time, "read")?
        } else {
            let file = open(&self.path, OFlags::empty())?;
            let mut buffer = Aligned::new(block);
            repeat(block, time, |at| Ok(rustix::io::pread(&file, buffer.bytes_mut(), at)?))?
        };
        Ok(DeviceRate { what: format!("sequential direct read ({})", self.tool()), block, bytes_per_second })
    }

    /// Latencies of messages of which `rate` a second are due, one after the other: all that are due go to the device in one
    /// direct O_DSYNC write (1 MiB at most), and are done when it is. That is a broker of which everything but the device takes
    /// no time, and which waits awake.
    pub fn scheduled_writes(&self, rate: f64, message: usize, time: Duration) -> anyhow::Result<Latency> {
        let file = open(&self.path, OFlags::DSYNC)?;
        let buffer = Aligned::new(CHUNK);
        let due = |number: u64| Duration::from_secs_f64(number as f64 / rate);
        let (started, mut latencies) = (Instant::now(), Recorder::new());
        let (mut next, mut at) = (0, 0);
        while due(next) < time {
            while started.elapsed() < due(next) {
                std::hint::spin_loop();
            }
            let behind = next
                + ((CHUNK / message) as u64).min(1 + (started.elapsed().as_secs_f64() * rate) as u64 - next);
            let len = ((behind - next) as usize * message).next_multiple_of(ALIGNMENT).min(CHUNK);
            ensure!(rustix::io::pwrite(&file, &buffer.bytes()[..len], at)? == len, "a short write");
            at = (at + len as u64) % (FILE_BYTES - CHUNK as u64);
            let done = started.elapsed();
            (next..behind)
                .for_each(|number| latencies.record(done.saturating_sub(due(number)).as_nanos() as u64, 1));
            next = behind;
        }
        latencies.summary().context("nothing was due")
    }

    fn tool(&self) -> &'static str {
        tool(self.fio)
    }

    fn fio(&self, what: &[&str], block: usize, time: Duration, side: &str) -> anyhow::Result<f64> {
        let mut command = fio_on(std::slice::from_ref(&self.path), block);
        command.arg("--time_based").args(what).arg(format!("--size={FILE_BYTES}"));
        command.arg(format!("--runtime={}", time.as_secs_f64().ceil()));
        number_of(&fio_report(&mut command)?[side], "bw_bytes")
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        // The run's directory goes as a whole anyway.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Reads every file once, one after the other, directly, in blocks of 1 MiB: the limit of a program that has to read
/// just these bytes.
pub fn read_once(files: &[PathBuf]) -> anyhow::Result<FilesRead> {
    ensure!(!files.is_empty(), "no files to read");
    let fio = has_fio();
    let (bytes, bytes_per_second) = if fio { read_by_fio(files)? } else { read_by_loop(files)? };
    let what = format!("direct reads of the same files, once ({})", tool(fio));
    Ok(FilesRead { what, bytes, bytes_per_second })
}

/// In several runs: fio takes a list of names only if it is short.
fn read_by_fio(files: &[PathBuf]) -> anyhow::Result<(u64, f64)> {
    let (mut bytes, mut seconds) = (0, 0.0);
    for files in files.chunks(FILES_AT_ONCE) {
        let (some, rate) = read_some_by_fio(files)?;
        bytes += some;
        seconds += some as f64 / rate;
    }
    Ok((bytes, bytes as f64 / seconds))
}

fn read_some_by_fio(files: &[PathBuf]) -> anyhow::Result<(u64, f64)> {
    // No --size: fio would give each file an even share of it, and leave out what is beyond.
    let mut command = fio_on(files, CHUNK);
    command.args(["--rw=read", "--readonly", "--ioengine=io_uring", "--file_service_type=sequential"]);
    command.arg(format!("--iodepth={READ_DEPTH}"));
    let read = &fio_report(&mut command)?["read"];
    let bytes = number_of(read, "io_bytes")? as u64;
    let there = files.iter().map(|file| Ok(file.metadata()?.len())).sum::<std::io::Result<u64>>()?;
    // It leaves out what is no whole block at the end of a file.
    ensure!(bytes + (files.len() * CHUNK) as u64 > there, "fio read {bytes} bytes of {there}");
    Ok((bytes, number_of(read, "bw_bytes")?))
}

fn read_by_loop(files: &[PathBuf]) -> anyhow::Result<(u64, f64)> {
    let mut buffer = Aligned::new(CHUNK);
    let (started, mut bytes) = (Instant::now(), 0);
    for path in files {
        let direct = OFlags::DIRECT.bits() as i32;
        let file = std::fs::OpenOptions::new().read(true).custom_flags(direct).open(path)?;
        let mut at = 0;
        loop {
            let count = rustix::io::pread(&file, buffer.bytes_mut(), at)?;
            at += count as u64;
            if count < CHUNK {
                break;
            }
        }
        bytes += at;
    }
    Ok((bytes, bytes as f64 / started.elapsed().as_secs_f64()))
}

fn has_fio() -> bool {
    Command::new("fio").arg("--version").output().is_ok()
}

fn tool(fio: bool) -> &'static str {
    if fio { "fio" } else { "own loop" }
}

/// A command of direct I/O on `files`.
fn fio_on(files: &[PathBuf], block: usize) -> Command {
    // A colon stands between two names.
    let names: Vec<String> =
        files.iter().map(|file| file.display().to_string().replace(':', "\\:")).collect();
    let mut command = Command::new("fio");
    command.args(["--name=limit", "--direct=1", "--output-format=json"]);
    command.arg(format!("--filename={}", names.join(":"))).arg(format!("--bs={block}"));
    command
}

/// What fio says of its only job.
fn fio_report(command: &mut Command) -> anyhow::Result<serde_json::Value> {
    let output = command.output().context("running fio")?;
    ensure!(output.status.success(), "fio: {}", String::from_utf8_lossy(&output.stderr));
    let mut report: serde_json::Value = serde_json::from_slice(&output.stdout).context("fio's report")?;
    Ok(report["jobs"][0].take())
}

fn number_of(side: &serde_json::Value, name: &str) -> anyhow::Result<f64> {
    side[name].as_f64().with_context(|| format!("fio's report has no {name}"))
}

/// Bytes a second that one core copies, in blocks larger than its caches.
pub fn memory_copy() -> f64 {
    let (from, mut to) = (vec![1_u8; 64 << 20], vec![0_u8; 64 << 20]);
    timed(from.len(), || {
        to.copy_from_slice(std::hint::black_box(&from));
        std::hint::black_box(&mut to);
    })
}

/// Bytes a second that one core takes the CRC32 of, in blocks of 1 KiB.
pub fn crc32() -> f64 {
    let data = vec![1_u8; 1024];
    timed(1024 * data.len(), || {
        for _ in 0..1024 {
            std::hint::black_box(crc32fast::hash(std::hint::black_box(&data)));
        }
    })
}

fn timed(bytes: usize, mut work: impl FnMut()) -> f64 {
    work();
    let (started, mut rounds) = (Instant::now(), 0);
    while started.elapsed() < Duration::from_millis(500) {
        work();
        rounds += 1;
    }
    (rounds * bytes) as f64 / started.elapsed().as_secs_f64()
}

fn repeat(
    block: usize,
    time: Duration,
    mut io: impl FnMut(u64) -> anyhow::Result<usize>,
) -> anyhow::Result<f64> {
    let (started, mut done) = (Instant::now(), 0_u64);
    while started.elapsed() < time {
        let count = io(done % (FILE_BYTES - block as u64 + 1) / ALIGNMENT as u64 * ALIGNMENT as u64)?;
        ensure!(count == block, "a short transfer: {count} of {block} bytes");
        done += count as u64;
    }
    Ok(done as f64 / started.elapsed().as_secs_f64())
}

fn open(path: &Path, flags: OFlags) -> anyhow::Result<std::fs::File> {
    let flags = (OFlags::DIRECT | flags).bits() as i32;
    let mut options = std::fs::OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).custom_flags(flags);
    options.open(path).with_context(|| format!("opening {}", path.display()))
}

/// Memory that direct I/O takes.
struct Aligned {
    memory: Vec<u8>,
    from: usize,
    len: usize,
}

impl Aligned {
    fn new(len: usize) -> Aligned {
        let memory = vec![0x5a_u8; len + ALIGNMENT];
        let from = memory.as_ptr().align_offset(ALIGNMENT);
        Aligned { memory, from, len }
    }

    fn bytes(&self) -> &[u8] {
        &self.memory[self.from..][..self.len]
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.from..][..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_different_lengths_are_read_in_full() {
        // Not in memory: direct I/O is what is tested.
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let files = [("a", 1), ("b:c", 3)].map(|(name, chunks)| {
            let path = dir.path().join(name);
            std::fs::write(&path, vec![7_u8; chunks * CHUNK]).unwrap();
            path
        });
        let bytes = 4 * CHUNK as u64;
        assert_eq!(read_once(&files).unwrap().bytes, bytes);
        assert_eq!(read_by_loop(&files).unwrap().0, bytes);
        assert!(read_once(&[]).is_err());
    }
}
