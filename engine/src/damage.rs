//! What was found to be other than what was written: told once, in the log and to whoever asks, and worked around.

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;

/// Findings that one shard keeps; further ones are in the log alone.
const MAX_KEPT: usize = 256;

/// A stretch of a file that cannot be read back as it was written. What is around it stays readable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub path: PathBuf,
    /// Where in the file the stretch begins, in bytes.
    pub offset: u64,
    /// Its length in bytes; 0 where nothing of the log is lost (a part of the index, which is rebuilt).
    pub len: u64,
    /// What is wrong.
    pub what: String,
}

impl std::fmt::Display for Damage {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Damage { path, offset, len, what } = self;
        write!(out, "{}: {len} bytes at offset {offset}: {what}", path.display())
    }
}

/// Collects the findings of one shard. Cheap to clone: clones are the same collection.
#[derive(Clone, Default)]
pub struct DamageReport(Rc<RefCell<Vec<Damage>>>);

impl DamageReport {
    /// Tells of a finding, unless it was told before.
    pub fn tell(&self, damage: Damage) {
        let mut told = self.0.borrow_mut();
        if told.contains(&damage) {
            return;
        }
        tracing::error!(
            path = %damage.path.display(),
            offset = damage.offset,
            len = damage.len,
            what = damage.what,
            "damage"
        );
        if told.len() < MAX_KEPT {
            told.push(damage);
        }
    }

    /// What was found so far.
    pub fn list(&self) -> Vec<Damage> {
        self.0.borrow().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_finding_is_kept_once_and_their_number_is_bounded() {
        let report = DamageReport::default();
        for offset in 0..2 * MAX_KEPT as u64 {
            let damage = Damage { path: "f".into(), offset: offset / 2, len: 7, what: "it is torn".into() };
            assert_eq!(damage.to_string(), format!("f: 7 bytes at offset {}: it is torn", offset / 2));
            report.tell(damage);
        }
        assert_eq!(report.list().len(), MAX_KEPT);
        report.tell(Damage { path: "g".into(), offset: 0, len: 0, what: String::new() });
        assert_eq!(report.list().len(), MAX_KEPT);
    }
}
