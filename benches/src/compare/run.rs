//! What a run of the comparison was made on and with: figures mean little without it.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use memchr::memmem;

/// Stands before the compiler's version in every binary that it made.
const RUSTC_MARK: &[u8] = b"rustc version ";
/// Longer than any version.
const LONGEST_VERSION: usize = 80;
const GIB_IN_KIB: f64 = (1 << 20) as f64;

/// The description of one run; no path of the machine is in it.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Run {
    /// Counts the runs whose sections are in one directory, from 1.
    pub number: u32,
    /// When it began, in UTC.
    pub date: String,
    /// Model of the processor.
    pub cpu: Option<String>,
    /// Cores that the run may use.
    pub cores: usize,
    /// Memory of the machine, in GiB.
    pub memory_gib: Option<f64>,
    /// The kernel's release.
    pub kernel: String,
    /// Kind and options of the file system that the brokers store on.
    pub file_system: Option<String>,
    /// RingMQ's own version.
    pub ringmq: Option<String>,
    /// The compiler that made RingMQ's binary.
    pub rustc: Option<String>,
    /// Version of the Java runtime, where there is one.
    pub java: Option<String>,
    /// Version of fio, where there is one.
    pub fio: Option<String>,
    /// Commit of the working directory, with `-dirty` if files differ from it.
    pub commit: Option<String>,
    /// The program and its arguments; of paths only the last part.
    pub command: String,
}

impl Run {
    /// Describes the run that begins: `ringmq` is the binary that is compared, `dir` where it stores.
    pub fn of(ringmq: &Path, dir: &Path) -> Run {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        Run {
            number: 0,
            date: date(),
            cpu: field("/proc/cpuinfo", "model name"),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_gib: field("/proc/meminfo", "MemTotal").and_then(|text| gib(&text)),
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            file_system: dir.canonicalize().ok().and_then(|dir| file_system(&mounts, &dir)),
            ringmq: said(Command::new(ringmq).arg("--version")),
            rustc: std::fs::read(ringmq).ok().and_then(|binary| rustc_of(&binary)),
            java: said(Command::new("java").arg("-version")),
            fio: said(Command::new("fio").arg("--version")),
            // Tags would replace the commit's own name.
            commit: said(Command::new("git").args([
                "describe",
                "--always",
                "--dirty",
                "--abbrev=12",
                "--exclude=*",
            ])),
            command: shown(std::env::args_os()),
        }
    }
}

fn date() -> String {
    let now = time::OffsetDateTime::now_utc();
    format!("{} {:02}:{:02}", now.date(), now.hour(), now.minute())
}

/// The value behind `name :` in a file of such lines.
fn field(path: &str, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let mut lines = text.lines().filter_map(|line| line.split_once(':'));
    lines.find_map(|(key, value)| (key.trim() == name).then(|| value.trim().to_owned()))
}

/// GiB from a text like `8000000 kB`.
fn gib(text: &str) -> Option<f64> {
    Some(text.split_whitespace().next()?.parse::<f64>().ok()? / GIB_IN_KIB)
}

/// Kind and options of what is mounted where `dir` is; `mounts` is the text of /proc/self/mountinfo.
fn file_system(mounts: &str, dir: &Path) -> Option<String> {
    let of = |line: &str| {
        let (mount, file_system) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(4);
        let (point, options) = (mount.next()?, mount.next()?);
        dir.starts_with(point).then(|| (point.len(), format!("{} ({options})", first_word(file_system))))
    };
    // Of two on the same directory the later one covers the other, and `max_by_key` takes the last of equals.
    mounts.lines().filter_map(of).max_by_key(|(len, _)| *len).map(|(_, shown)| shown)
}

fn first_word(text: &str) -> &str {
    text.split(' ').next().unwrap_or_default()
}

/// The compiler's version from the comment that it leaves in a binary.
fn rustc_of(binary: &[u8]) -> Option<String> {
    let mut marks = memmem::find_iter(binary, RUSTC_MARK).map(|at| &binary[at + RUSTC_MARK.len()..]);
    // This program has the mark itself, without a version behind it.
    let version = marks.find(|rest| rest.first().is_some_and(u8::is_ascii_digit))?;
    let upto = version.iter().take(LONGEST_VERSION).position(|byte| !(b' '..0x7f).contains(byte))?;
    Some(String::from_utf8_lossy(&version[..upto]).into_owned())
}

/// The first line that a program says; `None` if it is not there or fails. Java tells its version as an error.
fn said(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    text.lines().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned)
}

/// A command line in which no path shows where it is.
fn shown(arguments: impl Iterator<Item = OsString>) -> String {
    let arguments: Vec<String> = arguments.map(|argument| last_part(&argument.to_string_lossy())).collect();
    arguments.join(" ")
}

/// An argument with the last part of the path in it instead of the path; what is none stays as it is.
fn last_part(argument: &str) -> String {
    let Some(slash) = argument.find('/') else { return argument.to_owned() };
    // An option's name, as in `--dir=some/where`.
    let option = argument[..slash].rfind('=').map_or("", |equals| &argument[..=equals]);
    let path = argument[option.len()..].trim_end_matches('/');
    format!("{option}{}", path.rsplit('/').next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_shows_no_directories() {
        let line =
            ["/usr/bin/bench", "compare", "--dir", "/home/me/run/", "--results=a=b/c", "--loads", "8x32"];
        let shown = shown(line.into_iter().map(OsString::from));
        assert_eq!(shown, "bench compare --dir run --results=a=c --loads 8x32");
        assert_eq!(last_part("--data=/home/x=y/store"), "--data=store");
        assert_eq!(last_part("/"), "");
    }

    #[test]
    fn the_innermost_mount_counts() {
        let mounts = "22 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n\
                      30 22 0:25 / /tmp rw,nosuid shared:3 - tmpfs tmpfs rw\n\
                      31 22 0:26 / /tmp/run rw - xfs /dev/vdb rw\n";
        let of = |dir: &str| file_system(mounts, Path::new(dir));
        assert_eq!(of("/var/run").as_deref(), Some("ext4 (rw,relatime)"));
        assert_eq!(of("/tmp/running").as_deref(), Some("tmpfs (rw,nosuid)"));
        assert_eq!(of("/tmp/run/data").as_deref(), Some("xfs (rw)"));
        assert_eq!(file_system("", Path::new("/")), None);
    }

    #[test]
    fn a_binary_tells_its_compiler() {
        let binary = b"..rustc version \0..clang (rustc version 1.95.0 (5980 2026-04-14))\0..";
        assert_eq!(rustc_of(binary).as_deref(), Some("1.95.0 (5980 2026-04-14))"));
        assert_eq!(rustc_of(b"rustc version \0"), None);
        assert_eq!(rustc_of(b""), None);
    }

    #[test]
    fn this_run_is_described() {
        let dir = std::env::temp_dir();
        let run = Run::of(&std::env::current_exe().unwrap(), &dir);
        assert!(run.cores > 0 && run.memory_gib.unwrap() > 0.1 && !run.kernel.is_empty(), "{run:?}");
        assert!(run.date.len() == "2026-11-30 22:25".len() && !run.command.contains('/'), "{run:?}");
        assert!(run.file_system.is_some(), "{run:?}");
    }
}
