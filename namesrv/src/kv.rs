//! The KV configuration: namespace, key, value. Order configuration of topics lives here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ringmq_env::{Env, File, IoSlice, OpenOptions};
use serde::{Deserialize, Serialize};

/// Namespace of the order configuration: topic to `broker-a:4;broker-b:4`.
pub const ORDER_TOPIC_CONFIG: &str = "ORDER_TOPIC_CONFIG";
/// Java's name for the file.
const FILE_NAME: &str = "kvConfig.json";
/// The next version of the file while it is written.
const TEMPORARY_NAME: &str = "kvConfig.json.tmp";
/// Largest table, as bytes of its file: it is written whole at each change.
const MAX_FILE: u64 = 16 << 20;

/// A change of one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KvChange {
    /// Sets a value (100).
    Put {
        /// Namespace.
        namespace: String,
        /// Key.
        key: String,
        /// Value.
        value: String,
    },
    /// Removes a key (102); the namespace stays.
    Delete {
        /// Namespace.
        namespace: String,
        /// Key.
        key: String,
    },
}

/// The table, as Java's kvConfig.json has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct KvTable {
    config_table: BTreeMap<String, BTreeMap<String, String>>,
}

impl KvTable {
    /// One value.
    pub fn get(&self, namespace: &str, key: &str) -> Option<&str> {
        self.config_table.get(namespace)?.get(key).map(String::as_str)
    }

    /// All entries of a namespace; `None` if nothing was ever put there.
    pub fn namespace(&self, namespace: &str) -> Option<&BTreeMap<String, String>> {
        self.config_table.get(namespace)
    }

    /// Makes a change.
    pub fn apply(&mut self, change: &KvChange) {
        match change {
            KvChange::Put { namespace, key, value } => {
                let entries = self.config_table.entry(namespace.clone()).or_default();
                entries.insert(key.clone(), value.clone());
            }
            KvChange::Delete { namespace, key } => {
                if let Some(entries) = self.config_table.get_mut(namespace) {
                    entries.remove(key);
                }
            }
        }
    }
}

/// Why the KV configuration could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum KvFileError {
    /// The device failed.
    #[error("{path}: {error}", path = path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What failed.
        error: std::io::Error,
    },
    /// The table would be too large.
    #[error("the KV configuration would grow to {size} bytes, the most is {MAX_FILE}")]
    Full {
        /// Bytes that it would take.
        size: usize,
    },
    /// The file is not what this program writes.
    #[error("{path} is damaged ({error}): restore it, or remove it to start without KV configuration", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: String,
    },
}

/// The file of the KV configuration. A change is durable once [`KvFile::save`] returns, and never half there.
#[derive(Clone, Debug)]
pub struct KvFile<E> {
    env: E,
    dir: PathBuf,
}

impl<E: Env> KvFile<E> {
    /// The file in `dir`, which is created if missing.
    pub async fn open(env: E, dir: &Path) -> Result<KvFile<E>, KvFileError> {
        let result = env.create_dir_all(dir).await;
        result.map_err(|error| KvFileError::Io { path: dir.to_owned(), error })?;
        Ok(KvFile { env, dir: dir.to_owned() })
    }

    /// What was saved last; an empty table if nothing ever was.
    pub async fn load(&self) -> Result<KvTable, KvFileError> {
        let path = self.dir.join(FILE_NAME);
        let damaged = |error: String| KvFileError::Damaged { path: path.clone(), error };
        let bytes = match self.read(&path).await {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(KvTable::default()),
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                return Err(damaged(error.to_string()));
            }
            Err(error) => return Err(KvFileError::Io { path, error }),
        };
        serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))
    }

    async fn read(&self, path: &Path) -> std::io::Result<IoSlice> {
        let file = self.env.open(path, OpenOptions::default()).await?;
        let size = file.size().await?;
        if size > MAX_FILE {
            let text = format!("{size} bytes, the most is {MAX_FILE}");
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, text));
        }
        file.read_at(0, size as usize).await
    }

    /// Replaces the file: a new one is written and synced, then takes the old one's name.
    pub async fn save(&self, table: &KvTable) -> Result<(), KvFileError> {
        let bytes = serde_json::to_vec(table).expect("maps of text are always JSON");
        if bytes.len() as u64 > MAX_FILE {
            return Err(KvFileError::Full { size: bytes.len() });
        }
        let temporary = self.dir.join(TEMPORARY_NAME);
        let result = self.replace(&temporary, &bytes).await;
        result.map_err(|error| KvFileError::Io { path: temporary, error })
    }

    async fn replace(&self, temporary: &Path, bytes: &[u8]) -> std::io::Result<()> {
        let options = OpenOptions { write: true, create: true, ..OpenOptions::default() };
        let file = self.env.open(temporary, options).await?;
        file.set_len(0).await?;
        file.write_at(IoSlice::copy_of(bytes), 0).await?;
        file.sync().await?;
        self.env.rename(temporary, &self.dir.join(FILE_NAME)).await?;
        self.env.sync_dir(&self.dir).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &str, value: &str) -> KvChange {
        KvChange::Put { namespace: "N".into(), key: key.into(), value: value.into() }
    }

    #[test]
    fn entries_come_and_go_and_the_namespace_stays() {
        let mut table = KvTable::default();
        assert_eq!((table.get("N", "k"), table.namespace("N")), (None, None));
        table.apply(&put("k", "v"));
        table.apply(&put("k", "w"));
        assert_eq!(table.get("N", "k"), Some("w"));
        table.apply(&KvChange::Delete { namespace: "N".into(), key: "k".into() });
        table.apply(&KvChange::Delete { namespace: "other".into(), key: "k".into() });
        assert_eq!((table.get("N", "k"), table.namespace("N").map(BTreeMap::len)), (None, Some(0)));
    }

    #[test]
    fn the_file_is_the_one_of_java() {
        let mut table = KvTable::default();
        table.apply(&put("k", "é\"<"));
        let text = serde_json::to_string(&table).unwrap();
        assert_eq!(text, "{\"configTable\":{\"N\":{\"k\":\"é\\\"<\"}}}");
        assert_eq!(serde_json::from_str::<KvTable>(&text).unwrap(), table);
        let java = "{\n\t\"configTable\":{\n\t\t\"N\":{\"k\":\"é\\\"<\"\n\t\t}\n\t}\n}";
        assert_eq!(serde_json::from_str::<KvTable>(java).unwrap(), table);
    }
}
