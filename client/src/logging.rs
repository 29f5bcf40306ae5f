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
//! | `rocketmq.client.logFileMaxSize` | `ROCKETMQ_CLIENT_LOG_FILE_MAX_SIZE`: bytes before another file is begun | 64 MiB |
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
        let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join("logs/rocketmqlogs");
        let root = get("ROOT").map_or_else(home, PathBuf::from);
        let number = |name: &str| get(name).and_then(|value| value.parse().ok());
        Some(LogSettings {
            path: root.join(get("FILE_NAME").unwrap_or_else(|| "rocketmq_client.log".to_owned())),
            level: get("LEVEL").unwrap_or_else(|| "INFO".to_owned()),
            max_size: number("FILE_MAX_SIZE").unwrap_or(64 << 20),
            max_index: number("FILE_MAX_INDEX").unwrap_or(10) as u32,
        })
    }
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
