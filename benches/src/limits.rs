//! What the machine allows: synchronous writes and sequential reads of the device, copying memory, CRC32. Device
//! limits come from `fio` where it is installed, else from a loop of our own.

use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rustix::fs::OFlags;

const ALIGNMENT: usize = 4096;
/// The file that device limits are measured on; written in full beforehand, as RingMQ's segments are.
const FILE_BYTES: u64 = 1 << 30;
const CHUNK: usize = 1 << 20;
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

/// A file to measure on; removed when dropped.
pub struct Probe {
    path: PathBuf,
    fio: bool,
}

impl Probe {
    /// Writes the file below `dir`.
    pub fn new(dir: &Path) -> anyhow::Result<Probe> {
        let probe =
            Probe { path: dir.join("probe"), fio: Command::new("fio").arg("--version").output().is_ok() };
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

    fn tool(&self) -> &'static str {
        if self.fio { "fio" } else { "own loop" }
    }

    fn fio(&self, what: &[&str], block: usize, time: Duration, side: &str) -> anyhow::Result<f64> {
        let mut command = Command::new("fio");
        command.args(["--name=limit", "--direct=1", "--time_based", "--output-format=json"]).args(what);
        command.arg(format!("--filename={}", self.path.display())).arg(format!("--bs={block}"));
        command.arg(format!("--size={FILE_BYTES}")).arg(format!("--runtime={}", time.as_secs_f64().ceil()));
        let output = command.output().context("running fio")?;
        ensure!(output.status.success(), "fio: {}", String::from_utf8_lossy(&output.stderr));
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).context("fio's report")?;
        report["jobs"][0][side]["bw_bytes"].as_f64().context("fio's report has no bandwidth")
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        // The run's directory goes as a whole anyway.
        let _ = std::fs::remove_file(&self.path);
    }
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
