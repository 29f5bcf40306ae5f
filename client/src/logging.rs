//! Logs in a file of the client's own (Java's `ClientLogger`).
//!
//! Everything the client has to say goes through `tracing`, so a program with a subscriber of its own needs nothing of
//! this. One that has none calls [`init_from_env`], which honours the settings of Java's client, as variables of the
//! environment:
//!
//! | Java's property | here | default |
//! |---|---|---|
//! | `rocketmq.client.logUseSlf4j` | `ROCKETMQ_CLIENT_LOG_USE_SLF4J`: `true` leaves logging to the program | `false` |
//! | `rocketmq.client.logRoot` | `ROCKETMQ_CLIENT_LOG_ROOT`: the directory | `~/logs/rocketmqlogs` |
//! | `rocketmq.client.logFileName` | `ROCKETMQ_CLIENT_LOG_FILE_NAME` | `rocketmq_client.log` |
//! | `rocketmq.client.logLevel` | `ROCKETMQ_CLIENT_LOG_LEVEL`: a level, or directives of `tracing-subscriber` | `INFO` |
//! | `rocketmq.client.logFileMaxSize` | `ROCKETMQ_CLIENT_LOG_FILE_MAX_SIZE`: bytes, or `64MB` and the like, before another file is begun | 64 MiB |
//! | `rocketmq.client.logFileMaxIndex` | `ROCKETMQ_CLIENT_LOG_FILE_MAX_INDEX`: old files that are kept | 10 |

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::TryInitError;

/// Why logs do not go to the file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoggingError {
    /// The file cannot be opened.
    #[error("the log file {path}: {source}")]
    File {
        /// Where it should be.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The level is neither a level nor a list of directives.
    #[error("the log level {0} is not known")]
    Level(String),
    /// The program has a subscriber already.
    #[error(transparent)]
    Taken(#[from] TryInitError),
}

/// Where logs go, and how much is kept of them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogSettings {
    /// The file.
    pub path: PathBuf,
    /// A level, or directives of `tracing-subscriber` such as `info,ringmq_client::remoting=debug`.
    pub level: String,
    /// Bytes of the file before another is begun.
    pub max_size: u64,
    /// Old files that are kept: `<file>.1`, the youngest, to `<file>.<max_index>`.
    pub max_index: u32,
}

impl LogSettings {
    /// The settings of the environment; `None` when it leaves logging to the program.
    pub fn from_env() -> Option<LogSettings> {
        LogSettings::from(|name| std::env::var(name).ok())
    }

    fn from(get: impl Fn(&str) -> Option<String>) -> Option<LogSettings> {
        let get = |name: &str| get(&format!("ROCKETMQ_CLIENT_LOG_{name}")).filter(|value| !value.is_empty());
        if get("USE_SLF4J").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return None;
        }
        let root = get("ROOT").map_or_else(default_root, PathBuf::from);
        let default = LogSettings::default();
        Some(LogSettings {
            path: root.join(get("FILE_NAME").unwrap_or_else(|| DEFAULT_NAME.to_owned())),
            level: get("LEVEL").unwrap_or(default.level),
            max_size: get("FILE_MAX_SIZE").and_then(|value| size(&value)).unwrap_or(default.max_size),
            max_index: get("FILE_MAX_INDEX")
                .and_then(|value| value.parse().ok())
                .unwrap_or(default.max_index),
        })
    }
}

impl Default for LogSettings {
    /// What the environment need not say.
    fn default() -> LogSettings {
        LogSettings {
            path: default_root().join(DEFAULT_NAME),
            level: "INFO".to_owned(),
            max_size: 64 << 20,
            max_index: 10,
        }
    }
}

const DEFAULT_NAME: &str = "rocketmq_client.log";

fn default_root() -> PathBuf {
    PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join("logs/rocketmqlogs")
}

/// Bytes, as a number or as Java's loggers take them: `500KB`, `64MB`, `1GB`.
fn size(text: &str) -> Option<u64> {
    let text = text.trim().to_uppercase();
    let units = [("KB", 10), ("MB", 20), ("GB", 30)];
    let unit = units.into_iter().find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, shift)));
    let (number, shift) = unit.unwrap_or((&text, 0));
    number.trim().parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// Sends the program's `tracing` events to the file that the environment names; does nothing when it leaves logging
/// to the program.
pub fn init_from_env() -> Result<(), LoggingError> {
    match LogSettings::from_env() {
        Some(settings) => init(&settings),
        None => Ok(()),
    }
}

/// Sends the program's `tracing` events to a file.
pub fn init(settings: &LogSettings) -> Result<(), LoggingError> {
    let filter = EnvFilter::try_new(settings.level.to_lowercase())
        .map_err(|_| LoggingError::Level(settings.level.clone()))?;
    let file = |source| LoggingError::File { path: settings.path.clone(), source };
    let log = RollingFile::open(settings).map_err(file)?;
    let subscriber =
        tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(Mutex::new(log));
    use tracing_subscriber::util::SubscriberInitExt;
    Ok(subscriber.finish().try_init()?)
}

/// A file that makes room for itself.
#[derive(Debug)]
struct RollingFile {
    settings: LogSettings,
    file: File,
    len: u64,
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

impl RollingFile {
    fn open(settings: &LogSettings) -> io::Result<RollingFile> {
        if let Some(dir) = settings.path.parent() {
            fs::create_dir_all(dir)?;
        }
        let file = append(&settings.path)?;
        let len = file.metadata()?.len();
        Ok(RollingFile { settings: settings.clone(), file, len })
    }

    fn old(&self, index: u32) -> PathBuf {
        let mut name = self.settings.path.as_os_str().to_owned();
        name.push(format!(".{index}"));
        PathBuf::from(name)
    }

    /// Each old file becomes one older; the oldest goes.
    fn roll(&mut self) -> io::Result<()> {
        for index in (1..self.settings.max_index).rev() {
            if self.old(index).exists() {
                fs::rename(self.old(index), self.old(index + 1))?;
            }
        }
        match self.settings.max_index {
            0 => fs::remove_file(&self.settings.path)?,
            _ => fs::rename(&self.settings.path, self.old(1))?,
        }
        self.file = append(&self.settings.path)?;
        self.len = 0;
        Ok(())
    }
}

impl Write for RollingFile {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if self.len > 0 && self.len + buf.len() as u64 > self.settings.max_size {
            self.roll()?;
        }
        let written = self.file.write(buf)?;
        self.len += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_decides() {
        let settings = LogSettings::from(|name| match name {
            "ROCKETMQ_CLIENT_LOG_ROOT" => Some("/logs".to_owned()),
            "ROCKETMQ_CLIENT_LOG_FILE_MAX_INDEX" => Some("3".to_owned()),
            _ => None,
        });
        let settings = settings.unwrap();
        assert_eq!(settings.path, Path::new("/logs/rocketmq_client.log"));
        assert_eq!((settings.max_index, settings.max_size, &*settings.level), (3, 64 << 20, "INFO"));
        let sizes = ["70", "5kb", "64 MB", "1GB", "1TB", "", "99999999999GB"].map(size);
        let expected = [Some(70), Some(5 << 10), Some(64 << 20), Some(1 << 30), None, None, None];
        assert_eq!(sizes, expected);
        let slf4j = |name: &str| name.ends_with("USE_SLF4J").then(|| "true".to_owned());
        assert_eq!(LogSettings::from(slf4j), None);
    }

    #[test]
    fn old_files_are_kept_and_the_oldest_goes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("logs").join("c.log");
        let settings =
            LogSettings { path: path.clone(), level: "INFO".to_owned(), max_size: 10, max_index: 2 };
        let mut log = RollingFile::open(&settings).unwrap();
        for line in ["first...", "second..", "third...", "fourth.."] {
            log.write_all(line.as_bytes()).unwrap();
        }
        let read = |path: PathBuf| fs::read_to_string(path).unwrap();
        assert_eq!([read(path), read(log.old(1)), read(log.old(2))], ["fourth..", "third...", "second.."]);
        assert!(!log.old(3).exists());
        drop(log);
        assert_eq!(RollingFile::open(&settings).unwrap().len, 8);
    }
}
