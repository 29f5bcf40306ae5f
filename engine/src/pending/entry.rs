//! What the table keeps of a record that waits, and how a record says that it is one.

use ringmq_protocol::names::topics;
use ringmq_protocol::properties::{self, names as property};
use ringmq_protocol::record::RecordView;

use crate::types::{LogPosition, PendingKind, PendingRecord, PhysicalOffset, ShardId};

/// Where a record stands among those that wait: by its due time, then in the order in which they came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    /// When it is due, in ms.
    pub due_ms: i64,
    /// Decides among equal due times: the log position where the message was stored first.
    pub order: u64,
}

impl Key {
    /// Before all others.
    pub(crate) const MIN: Key = Key { due_ms: i64::MIN, order: 0 };
    /// Behind all others; no record has it.
    pub(crate) const MAX: Key = Key { due_ms: i64::MAX, order: u64::MAX };
}

/// Where the record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Log position.
    pub position: u64,
    /// Bytes of the record.
    pub size: u32,
    /// CRC32 of all of it.
    pub crc: u32,
}

/// The kind of record that a topic holds; `None`: its records wait for nothing.
pub(crate) fn kind_of(topic: &str) -> Option<PendingKind> {
    match topic {
        topics::SCHEDULE_TOPIC | topics::TIMER_TOPIC => Some(PendingKind::Delayed),
        topics::TRANS_HALF_TOPIC => Some(PendingKind::Half),
        _ => None,
    }
}

/// What the field PREPAREDTRANSACTIONOFFSET of a record that settles `record` says: the physical offset of a half
/// message, as Java has it, and the complement of a delayed message's.
pub(crate) fn settling_field(record: &PendingRecord, shard: ShardId) -> i64 {
    let physical = PhysicalOffset::new(shard, record.position).get();
    match record.kind {
        PendingKind::Half => physical,
        PendingKind::Delayed => !physical,
    }
}

/// Kind and position of the record that is settled by one with this field; `None` when it settles nothing.
pub(crate) fn settled_by(field: i64) -> Option<(PendingKind, LogPosition)> {
    let (kind, physical) = match field {
        0 => return None,
        ..0 => (PendingKind::Delayed, !field),
        _ => (PendingKind::Half, field),
    };
    PhysicalOffset::from_wire(physical).map(|offset| (kind, offset.position()))
}

impl PendingRecord {
    /// Reads `record`, which starts at `position`; `None` when it is not one that waits, or does not say for when.
    pub fn read(position: LogPosition, record: &[u8]) -> Option<PendingRecord> {
        let view = RecordView::decode(record).ok()?;
        let kind = kind_of(view.topic)?;
        PendingRecord::of(kind, view.properties, position, record.len() as u32, crc32fast::hash(record))
    }

    /// From the record's properties.
    pub(crate) fn of(
        kind: PendingKind,
        properties: &str,
        position: LogPosition,
        size: u32,
        crc: u32,
    ) -> Option<PendingRecord> {
        let due = properties::find(properties, property::DUE)?;
        let (due, order) = match due.split_once(',') {
            Some((due, order)) => (due, order.parse().ok()?),
            None => (due, position.0),
        };
        let due_ms = due.parse().ok().filter(|due| *due < i64::MAX)?;
        Some(PendingRecord { kind, due_ms, order, position, size, crc })
    }

    pub(crate) fn key(&self) -> Key {
        Key { due_ms: self.due_ms, order: self.order }
    }

    pub(crate) fn place(&self) -> Place {
        Place { position: self.position.0, size: self.size, crc: self.crc }
    }

    pub(crate) fn new(kind: PendingKind, key: Key, place: Place) -> PendingRecord {
        PendingRecord {
            kind,
            due_ms: key.due_ms,
            order: key.order,
            position: LogPosition(place.position),
            size: place.size,
            crc: place.crc,
        }
    }
}
