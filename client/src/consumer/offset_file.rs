//! The offsets of a broadcasting consumer in a file: Java's name, place and format.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use ringmq_protocol::body::{MessageQueue, ResetOffsetBody};
use ringmq_protocol::json::{self, Dialect};

/// Environment variable for the directory of all offset files: Java's property `rocketmq.client.localOffsetStoreDir`.
const DIR_VARIABLE: &str = "ROCKETMQ_CLIENT_LOCAL_OFFSET_STORE_DIR";

/// `<dir>/<client>/<group>/offsets.json` with its `.bak`.
#[derive(Debug)]
pub(crate) struct OffsetFile {
    path: PathBuf,
}

/// Where a group's file is: under `~/.rocketmq_offsets` unless the environment says otherwise.
pub(crate) fn default_path(client: &str, group: &str) -> PathBuf {
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".rocketmq_offsets");
    let dir = std::env::var_os(DIR_VARIABLE).map_or_else(home, PathBuf::from);
    dir.join(client).join(group).join("offsets.json")
}

impl OffsetFile {
    pub(crate) fn new(path: PathBuf) -> OffsetFile {
        OffsetFile { path }
    }

    /// What is stored. A damaged or missing file is replaced by its backup; without one there are no offsets.
    pub(crate) fn read(&self) -> BTreeMap<MessageQueue, i64> {
        let tables = [read(&self.path), read(&self.backup())];
        tables.into_iter().flatten().next().unwrap_or_default()
    }

    /// Writes offsets over those of the same queues; other queues keep theirs. The old file becomes the backup, and
    /// at every moment one of the two is whole.
    pub(crate) fn write(&self, offsets: BTreeMap<MessageQueue, i64>) -> io::Result<()> {
        let old = self.read();
        let mut table = old.clone();
        table.extend(offsets);
        if table == old {
            return Ok(());
        }
        let dir = self.path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(dir)?;
        let fresh = self.path.with_extension("json.tmp");
        // The same shape as the body of an offset reset: {"offsetTable":{{queue}:offset}}.
        let text = json::to_vec(&ResetOffsetBody { offset_table: table }, Dialect::Java);
        let mut file = fs::File::create(&fresh)?;
        file.write_all(&text)?;
        file.sync_all()?;
        // A damaged file must not replace a whole backup.
        if read(&self.path).is_some() {
            fs::rename(&self.path, self.backup())?;
        }
        fs::rename(&fresh, &self.path)
    }

    fn backup(&self) -> PathBuf {
        self.path.with_extension("json.bak")
    }
}

fn read(path: &Path) -> Option<BTreeMap<MessageQueue, i64>> {
    let text = fs::read(path).ok().filter(|text| !text.is_empty())?;
    match json::from_slice::<ResetOffsetBody>(&text) {
        Ok(body) => Some(body.offset_table),
        Err(error) => {
            tracing::warn!(target: "ringmq_client::offsets", path = %path.display(), %error, "a damaged file");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(queue_id: i32) -> MessageQueue {
        MessageQueue { broker_name: "b".to_owned(), queue_id, topic: "t".to_owned() }
    }

    #[test]
    fn javas_format_there_and_back() {
        let dir = tempfile::tempdir().unwrap();
        let file = OffsetFile::new(dir.path().join("c/g/offsets.json"));
        assert!(file.read().is_empty());
        file.write(BTreeMap::from([(queue(1), 5)])).unwrap();
        let text = fs::read_to_string(&file.path).unwrap();
        assert_eq!(text, r#"{"offsetTable":{{"brokerName":"b","queueId":1,"topic":"t"}:5}}"#);
        file.write(BTreeMap::from([(queue(2), 7)])).unwrap();
        assert_eq!(file.read(), BTreeMap::from([(queue(1), 5), (queue(2), 7)]));
    }

    #[test]
    fn a_damaged_file_is_replaced_by_its_backup() {
        let dir = tempfile::tempdir().unwrap();
        let file = OffsetFile::new(dir.path().join("offsets.json"));
        file.write(BTreeMap::from([(queue(1), 5)])).unwrap();
        file.write(BTreeMap::from([(queue(1), 6)])).unwrap();
        fs::write(&file.path, "{\"offsetTable\":{{").unwrap();
        assert_eq!(file.read(), BTreeMap::from([(queue(1), 5)]));
    }
}
