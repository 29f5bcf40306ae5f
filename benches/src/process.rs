//! What a server costs: its process's CPU time (all its threads, io_uring's workers included), memory, context
//! switches and bytes written, as Linux accounts them under /proc; and what the kernel does on its behalf outside of
//! it: CPU time of kernel workers, flushes of the device.

use std::collections::{BTreeMap, HashMap};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{major, minor, stat};

/// Fields of /proc/PID/stat behind the program's name.
const STATE_FIELDS_BEFORE_UTIME: usize = 11;
/// Names of the kernel threads that work for whoever writes and sends: work queues (write-back, direct I/O's completion),
/// the file systems' journals, and interrupts that are put off.
const KERNEL_WORKERS: [&str; 3] = ["kworker/", "jbd2/", "ksoftirqd/"];
/// Fields of /sys/dev/block/…/stat.
const DISK_WRITES: usize = 4;
const DISK_FLUSHES: usize = 15;
/// Longest wait for the broker's metrics.
const METRICS_TIMEOUT: Duration = Duration::from_secs(2);

/// Reads the counters of one server and of the device that it stores on.
#[derive(Clone, Debug)]
pub struct Meter {
    pid: u32,
    device: Option<String>,
    metrics: Option<SocketAddr>,
}

/// A reading of a [`Meter`].
#[derive(Clone, Debug, Default)]
pub struct Usage {
    cpu: Duration,
    kernel_cpu: HashMap<u32, Duration>,
    resident: u64,
    written: u64,
    switches: u64,
    device: Option<(u64, u64)>,
    commits: Option<CommitSizes>,
}

/// CPU time of each thread of a process, by the thread's id.
#[derive(Clone, Debug)]
pub struct ThreadTimes(HashMap<u32, Duration>);

/// Group commits by their sizes: how many had up to so many bytes of log, from the smallest bound on; the last has none.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct CommitSizes(BTreeMap<u64, u64>);

/// What a load cost, for each message where that makes sense.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Costs {
    /// CPU µs of the process, user and system, all threads.
    pub cpu_us: f64,
    /// CPU µs of kernel threads of the whole machine (write-back, direct I/O's completion, the journal, network
    /// interrupts) in the same time.
    pub kernel_cpu_us: f64,
    /// Resident memory at the end, in MiB.
    pub resident_mib: f64,
    /// Bytes that the process caused to be written to storage.
    pub written: f64,
    /// Context switches of all threads.
    pub switches: f64,
    /// Write requests that the device completed in all, if it could be told.
    pub device_writes: Option<u64>,
    /// Flushes that the device completed in all, if it could be told.
    pub device_flushes: Option<u64>,
    /// Group commits, if the broker tells.
    pub commits: Option<CommitSizes>,
    /// Messages that all this was for.
    pub messages: u64,
}

impl Meter {
    /// For the process `pid`, which stores below `dir`.
    pub fn new(pid: u32, dir: Option<&Path>) -> Meter {
        let device = dir
            .and_then(|dir| stat(dir).ok())
            .map(|stat| format!("/sys/dev/block/{}:{}/stat", major(stat.st_dev), minor(stat.st_dev)));
        Meter { pid, device, metrics: None }
    }

    /// Asks the broker's metrics, too, which group commits it made.
    #[must_use]
    pub fn with_metrics(self, metrics: Option<SocketAddr>) -> Meter {
        Meter { metrics, ..self }
    }

    /// Reads the counters; zeros when the process is gone.
    pub fn read(&self) -> Usage {
        let pid = self.pid;
        Usage {
            cpu: cpu(pid).unwrap_or_default(),
            kernel_cpu: kernel_workers(),
            resident: resident(pid),
            written: field(&format!("/proc/{pid}/io"), "write_bytes:").unwrap_or(0),
            switches: switches(pid),
            device: self.device.as_deref().and_then(device_counters),
            commits: self.metrics.and_then(|metrics| CommitSizes::of(&scrape(metrics)?)),
        }
    }

    /// CPU time of each thread so far, in nanoseconds, for a process that is idle: the ticks that [`Meter::read`] takes
    /// are too coarse for it. Of a thread that runs at this moment, its current turn may be missing.
    pub fn thread_times(&self) -> ThreadTimes {
        ThreadTimes(thread_times(self.pid).unwrap_or_default())
    }

    /// Resident memory of the process in bytes.
    pub fn resident(&self) -> u64 {
        resident(self.pid)
    }

    /// The most resident memory that the process ever had, in bytes.
    pub fn most_resident(&self) -> u64 {
        status_bytes(self.pid, "VmHWM:")
    }
}

impl ThreadTimes {
    /// What the threads ran since `before`; a thread that has ended meanwhile is left out.
    pub fn since(&self, before: &ThreadTimes) -> Duration {
        growth(&self.0, &before.0)
    }
}

impl Usage {
    /// What was spent since `before`, for `messages` messages.
    pub fn since(&self, before: &Usage, messages: u64) -> Costs {
        let each = |value: f64| value / messages.max(1) as f64;
        let kernel = growth(&self.kernel_cpu, &before.kernel_cpu);
        let device = self.device.zip(before.device);
        Costs {
            cpu_us: each(self.cpu.saturating_sub(before.cpu).as_secs_f64() * 1e6),
            kernel_cpu_us: each(kernel.as_secs_f64() * 1e6),
            resident_mib: self.resident as f64 / (1 << 20) as f64,
            written: each(self.written.saturating_sub(before.written) as f64),
            switches: each(self.switches.saturating_sub(before.switches) as f64),
            device_writes: device.map(|(after, before)| after.0.saturating_sub(before.0)),
            device_flushes: device.map(|(after, before)| after.1.saturating_sub(before.1)),
            commits: self
                .commits
                .as_ref()
                .zip(before.commits.as_ref())
                .map(|(after, before)| after.since(before)),
            messages,
        }
    }
}

impl Costs {
    /// CPU µs of the process and of kernel workers together.
    pub fn all_cpu_us(&self) -> f64 {
        self.cpu_us + self.kernel_cpu_us
    }

    /// Flushes of the device for a thousand messages.
    pub fn flushes_per_thousand(&self) -> Option<f64> {
        Some(1000.0 * self.device_flushes? as f64 / self.messages.max(1) as f64)
    }

    /// Messages of one group commit on average; where the broker does not tell, of one flush of the device.
    pub fn messages_per_commit(&self) -> Option<f64> {
        let commits = self.commits.as_ref().map(CommitSizes::count).or(self.device_flushes);
        let commits = commits.filter(|commits| *commits > 0)?;
        Some(self.messages as f64 / commits as f64)
    }

    /// For a terminal.
    pub fn line(&self) -> String {
        let commit = self.messages_per_commit().map_or("n/a".to_owned(), |n| format!("{n:.1}"));
        let sizes = self.commits.as_ref().and_then(CommitSizes::label);
        let sizes = sizes.map_or(String::new(), |sizes| format!(" ({sizes} KiB)"));
        let flushes = self.flushes_per_thousand().map_or("n/a".to_owned(), |n| format!("{n:.2}"));
        format!(
            "{:.2}+{:.2} us CPU  {:.0} MiB  {:.0} B written  {:.3} switches  {commit} msgs/commit{sizes}  \
             {flushes} flushes/1000 msgs",
            self.cpu_us, self.kernel_cpu_us, self.resident_mib, self.written, self.switches
        )
    }
}

impl CommitSizes {
    /// Sums over the shards of what the text of the broker's metrics says; `None`: it says nothing.
    fn of(text: &str) -> Option<CommitSizes> {
        let mut classes = BTreeMap::<u64, u64>::new();
        for line in text.lines().filter_map(|line| line.strip_prefix("ringmq_store_commit_bytes_bucket{")) {
            let (labels, count) = line.rsplit_once(' ')?;
            let bound = labels.rsplit_once("le=\"")?.1.strip_suffix("\"}")?;
            let bound = if bound == "+Inf" { u64::MAX } else { bound.parse().ok()? };
            *classes.entry(bound).or_default() += count.trim().parse::<f64>().ok()? as u64;
        }
        // Each bound counts what the smaller ones do.
        let mut smaller = 0;
        for count in classes.values_mut() {
            *count -= std::mem::replace(&mut smaller, *count);
        }
        (!classes.is_empty()).then_some(CommitSizes(classes))
    }

    /// Those since `before`.
    fn since(&self, before: &CommitSizes) -> CommitSizes {
        let earlier = |bound| before.0.get(bound).copied().unwrap_or(0);
        CommitSizes(
            self.0.iter().map(|(bound, count)| (*bound, count.saturating_sub(earlier(bound)))).collect(),
        )
    }

    /// How many.
    pub fn count(&self) -> u64 {
        self.0.values().sum()
    }

    /// The classes of the median and of the 99th percentile, in KiB: "≤ 256, ≤ 1024".
    pub fn label(&self) -> Option<String> {
        let class = |share: f64| {
            let (wanted, mut upto) = ((self.count() as f64 * share).ceil() as u64, 0);
            let mut classes = self.0.iter();
            classes.find_map(|(bound, count)| {
                upto += count;
                (upto >= wanted).then_some(*bound)
            })
        };
        let largest = self.0.keys().rev().find(|bound| **bound < u64::MAX)?;
        let text = |bound: u64| match bound {
            u64::MAX => format!("> {}", largest >> 10),
            bound => format!("≤ {}", bound >> 10),
        };
        let (median, most) = (class(0.5)?, class(0.99)?);
        (self.count() > 0).then(|| format!("{}, {}", text(median), text(most)))
    }
}

fn cpu(pid: u32) -> Option<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    times(&stat)
}

/// User and system time from the text of /proc/PID/stat.
fn times(stat: &str) -> Option<Duration> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(STATE_FIELDS_BEFORE_UTIME);
    let ticks = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    Some(Duration::from_micros(ticks * 1_000_000 / rustix::param::clock_ticks_per_second()))
}

/// CPU time of every kernel worker, by its process id.
fn kernel_workers() -> HashMap<u32, Duration> {
    let Ok(processes) = std::fs::read_dir("/proc") else { return HashMap::new() };
    let of = |name: &str| {
        let pid: u32 = name.parse().ok()?;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        is_kernel_worker(&stat).then(|| times(&stat).map(|cpu| (pid, cpu)))?
    };
    processes.flatten().filter_map(|entry| of(entry.file_name().to_str()?)).collect()
}

/// Whether this text of /proc/PID/stat is that of a kernel thread which counts.
fn is_kernel_worker(stat: &str) -> bool {
    let name = stat.split_once('(').map_or("", |(_, name)| name);
    KERNEL_WORKERS.iter().any(|worker| name.starts_with(worker))
}

/// CPU time by thread from the scheduler's own counters, which are exact where ticks are sampled.
fn thread_times(pid: u32) -> Option<HashMap<u32, Duration>> {
    let of = |name: &str| {
        let thread: u32 = name.parse().ok()?;
        let text = std::fs::read_to_string(format!("/proc/{pid}/task/{thread}/schedstat")).ok()?;
        Some((thread, Duration::from_nanos(text.split_whitespace().next()?.parse().ok()?)))
    };
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    Some(threads.flatten().filter_map(|entry| of(entry.file_name().to_str()?)).collect())
}

/// What the times of `after` have grown by, in all; those that were not there before count from 0.
fn growth(after: &HashMap<u32, Duration>, before: &HashMap<u32, Duration>) -> Duration {
    let earlier = |id| before.get(id).copied().unwrap_or_default();
    after.iter().map(|(id, time)| time.saturating_sub(earlier(id))).sum()
}

fn resident(pid: u32) -> u64 {
    status_bytes(pid, "VmRSS:")
}

/// A field of /proc/PID/status that is told in KiB.
fn status_bytes(pid: u32, name: &str) -> u64 {
    field(&format!("/proc/{pid}/status"), name).unwrap_or(0) * 1024
}

fn switches(pid: u32) -> u64 {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return 0 };
    let of = |path: &Path| {
        let status = path.join("status");
        let status = status.to_str()?;
        Some(field(status, "voluntary_ctxt_switches:")? + field(status, "nonvoluntary_ctxt_switches:")?)
    };
    threads.flatten().filter_map(|thread| of(&thread.path())).sum()
}

/// Writes and flushes that the device has completed.
fn device_counters(path: &str) -> Option<(u64, u64)> {
    let text = std::fs::read_to_string(path).ok()?;
    let fields: Vec<u64> = text.split_whitespace().map(|field| field.parse().unwrap_or(0)).collect();
    Some((*fields.get(DISK_WRITES)?, *fields.get(DISK_FLUSHES)?))
}

/// The text of the broker's metrics.
fn scrape(metrics: SocketAddr) -> Option<String> {
    let mut stream = TcpStream::connect(metrics).ok()?;
    stream.set_read_timeout(Some(METRICS_TIMEOUT)).ok()?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

fn field(path: &str, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commit_sizes_are_summed_over_shards_and_since_a_reading() {
        let text = |counts: [u64; 3]| {
            let line = |shard: u32, le: &str, count: u64| {
                format!("ringmq_store_commit_bytes_bucket{{shard=\"{shard}\",le=\"{le}\"}} {count}\n")
            };
            let [small, large, all] = counts;
            let of_one = [line(0, "1024", small), line(0, "262144", large), line(0, "+Inf", all)].concat();
            of_one + &line(1, "1024", 1) + &line(1, "262144", 1) + &line(1, "+Inf", 1)
        };
        let before = CommitSizes::of(&text([10, 10, 10])).unwrap();
        assert_eq!((before.count(), before.label().unwrap().as_str()), (11, "≤ 1, ≤ 1"));
        let since = CommitSizes::of(&text([20, 90, 110])).unwrap().since(&before);
        assert_eq!((since.count(), since.label().unwrap().as_str()), (100, "≤ 256, > 256"));
        assert_eq!(before.since(&before).label(), None);
        assert_eq!(CommitSizes::of("ringmq_topics 3\n"), None);
    }

    #[test]
    fn this_process_is_metered() {
        let dir = std::env::temp_dir();
        let meter = Meter::new(std::process::id(), Some(&dir));
        let before = meter.read();
        let mut sum = 0_u64;
        let threads = meter.thread_times();
        while cpu(meter.pid).unwrap() < before.cpu + Duration::from_millis(30) {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        let costs = meter.read().since(&before, 10);
        assert!(costs.cpu_us >= 2000.0 && costs.resident_mib > 1.0, "{costs:?}");
        assert!(meter.most_resident() >= 1 << 20);
        // The turn that runs now may not be counted yet, and ticks round up.
        let ran = meter.thread_times().since(&threads);
        assert!(ran >= Duration::from_millis(5), "{ran:?}");
    }

    #[test]
    fn kernel_threads_that_work_for_others_count() {
        let counts = |name: &str| is_kernel_worker(&format!("17 ({name}) S 2 0 0 0 -1"));
        assert!(["kworker/u8:5-writeback", "jbd2/vda-8", "ksoftirqd/1"].into_iter().all(counts));
        assert!(!["migration/0", "bash", "my kworker/"].into_iter().any(counts));
    }

    #[test]
    fn flushes_are_told_for_a_thousand_messages() {
        let costs = Costs { device_flushes: Some(3), messages: 2000, ..Costs::default() };
        assert_eq!(costs.flushes_per_thousand(), Some(1.5));
        assert!(costs.line().ends_with("1.50 flushes/1000 msgs"), "{}", costs.line());
        assert!(Costs::default().line().ends_with("n/a flushes/1000 msgs"));
    }
}
