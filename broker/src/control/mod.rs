//! What core 0 knows and alone changes: topics, consumer groups, client sessions, queue locks, and the answers of
//! the admin verbs that read them.
//!
//! Everything here is sans-I/O: a call changes the state in memory and says what is to be done about it, and the
//! node does that. The time comes in as an argument.

pub mod answers;
pub mod change;
pub mod copy;
pub mod groups;
pub mod locks;
pub mod refusal;
pub mod registration;
pub mod requests;
pub mod runtime_info;
pub mod sessions;
mod state;
pub mod stats;
mod topic_table;
pub mod topics;

use ringmq_protocol::body::DataVersion;

pub use change::{Change, MetaRecord, Update};
pub use copy::{KnownTopic, MetadataCopy, TopicPlace};
pub use refusal::{FAQ, Refusal};
pub use state::{ControlSettings, ControlState, Effects, Forget, Notify, RestoreError};

/// Most entries of one slice of the topic or group list (Java's splitMetadataSize).
pub const MAX_PAGE: usize = 2000;

/// The slice of a list that an admin tool asks for. A request with none of the three asks for all of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// How many entries the caller has already.
    pub from: Option<usize>,
    /// Most entries that it takes.
    pub max: Option<usize>,
    /// The version that those entries are of.
    pub version: Option<DataVersion>,
}

impl Page {
    /// The whole list.
    pub fn whole() -> Page {
        Page::default()
    }

    /// First entry and number of entries, in a list that has this version now. A caller with another version
    /// starts again.
    fn range(&self, version: DataVersion) -> (usize, usize) {
        if *self == Page::whole() {
            return (0, usize::MAX);
        }
        let from = if self.version == Some(version) { self.from.unwrap_or(0) } else { 0 };
        (from, self.max.unwrap_or(MAX_PAGE).min(MAX_PAGE))
    }
}

/// The version after `version`, of a change at `now_ms`.
fn next_version(version: DataVersion, now_ms: i64) -> DataVersion {
    DataVersion { counter: version.counter + 1, timestamp: now_ms, ..version }
}
