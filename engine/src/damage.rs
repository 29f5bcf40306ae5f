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
pub struct DamageReport(Rc<RefCell<Told>>);

#[derive(Default)]
struct Told {
    kept: Vec<Damage>,
    /// Findings, kept or not.
    count: usize,
    /// The first that lost anything, and how many did, kept or not.
    losses: Option<(Damage, usize)>,
}

impl DamageReport {
    /// Tells of a finding, unless it was told before.
    pub fn tell(&self, damage: Damage) {
        let mut told = self.0.borrow_mut();
        if told.kept.contains(&damage) {
            return;
        }
        tracing::error!(
            path = %damage.path.display(),
            offset = damage.offset,
            len = damage.len,
            what = damage.what,
            "damage"
        );
        told.count += 1;
        if damage.len > 0 {
            told.losses.get_or_insert_with(|| (damage.clone(), 0)).1 += 1;
        }
        if told.kept.len() < MAX_KEPT {
            told.kept.push(damage);
        }
    }

    /// What was found so far, the first few hundred places.
    pub fn list(&self) -> Vec<Damage> {
        self.0.borrow().kept.clone()
    }

    /// How much was found so far.
    pub(crate) fn count(&self) -> usize {
        self.0.borrow().count
    }

    /// The first finding that lost anything, and how many did.
    pub(crate) fn losses(&self) -> Option<(Damage, usize)> {
        self.0.borrow().losses.clone()
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
        assert_eq!((report.list().len(), report.count()), (MAX_KEPT, MAX_KEPT + 1));
    }

    #[test]
    fn a_loss_is_known_however_much_was_told_before() {
        let report = DamageReport::default();
        let damage = |offset, len| Damage { path: "f".into(), offset, len, what: String::new() };
        (0..MAX_KEPT as u64).for_each(|offset| report.tell(damage(offset, 0)));
        assert_eq!(report.losses(), None);
        report.tell(damage(1 << 20, 7));
        report.tell(damage(2 << 20, 8));
        assert_eq!(report.losses(), Some((damage(1 << 20, 7), 2)));
    }
}
