//! Opening the segments of a log: what their headers say, and what becomes of files that do not fit. Whatever is
//! whole is kept; the rest is told, and is a hole in the log.

use std::io;
use std::path::PathBuf;

use ringmq_env::{DirEntry, Env, File};

use super::segment::{
    HeaderProblem, MIN_SEGMENT_LEN, NEW_FILE, SEGMENT_HEADER_LEN, SegmentConfig, SegmentRange, Segments,
};
use crate::damage::{Damage, DamageReport};
use crate::inspect::read_dir_if_any;
use crate::reread::read_again;
use crate::shard::OpenError;
use crate::store::STORE_FORMAT;
use crate::types::LogPosition;

/// A file with a segment's name.
struct Found {
    start: u64,
    file_len: u64,
    /// The segment's length, by its header; `None` when that is damaged.
    header_len: Option<u64>,
    path: PathBuf,
}

impl<E: Env> Segments<E> {
    /// Lists the log's segments, and changes nothing but for making their directory; damage is told in `report`. Refused
    /// are segments of another log, or of a newer program.
    pub(crate) async fn open(
        env: E,
        config: SegmentConfig,
        report: &DamageReport,
    ) -> Result<Segments<E>, OpenError> {
        let dir = config.dir.clone();
        if !config.read_only {
            env.create_dir_all(&dir).await.map_err(OpenError::at(&dir))?;
        }
        let mut found = Vec::new();
        for entry in read_dir_if_any(&env, &dir).await.map_err(OpenError::at(&dir))? {
            if let Some(range) = SegmentRange::of_file(&entry) {
                found.extend(look(&env, &config, range, &entry, report).await?);
            }
        }
        let ranges = fit_together(&dir, &found, report);
        Ok(Segments::new(env, config, ranges.into_iter()))
    }

    /// Removes what was half made, and keeps spares.
    async fn tidy(&self) -> io::Result<()> {
        for entry in self.env.read_dir(&self.config.dir).await? {
            match entry.name == NEW_FILE {
                true => self.env.remove_file(&self.config.dir.join(NEW_FILE)).await?,
                false => self.adopt_spare(&entry).await?,
            }
        }
        // A killed process may have left a name that shows, and is not on the device.
        self.env.sync_dir(&self.config.dir).await
    }

    /// Tells of what is missing of the log, which should begin at `begin`, if that is known, and does at `min`. A log without
    /// a segment should begin at 0.
    pub(crate) fn tell_missing(&self, begin: Option<LogPosition>, min: LogPosition, report: &DamageReport) {
        let begin = begin.or_else(|| self.min().is_none().then_some(LogPosition(0)));
        if let Some(begin) = begin.filter(|begin| *begin < min) {
            let missing = SegmentRange { start: begin.0, len: min.0 - begin.0 };
            let what = "the log's oldest segments are missing, from this one on".into();
            report.tell(Damage { path: self.path(&missing), offset: 0, len: missing.len, what });
        }
    }

    /// Tidies the directory, and writes damaged headers anew.
    pub(crate) async fn mend(&self) -> Result<(), OpenError> {
        self.tidy().await.map_err(OpenError::at(&self.config.dir))?;
        for range in self.ranges() {
            let path = self.path(&range);
            self.mend_header(&range).await.map_err(OpenError::at(&path))?;
        }
        Ok(())
    }

    /// Gives the segment, if there is one, the length back that was cut off it: the log goes on in it.
    pub(crate) async fn mend_len(&self, range: &SegmentRange) -> io::Result<()> {
        if !self.exists(range.start) {
            return Ok(());
        }
        let file = self.env.open(&self.path(range), self.options()).await?;
        give_back_len(&file, range.len).await
    }

    async fn mend_header(&self, range: &SegmentRange) -> io::Result<()> {
        let file = self.env.open(&self.path(range), self.options()).await?;
        let header = read_again(&file, 0, SEGMENT_HEADER_LEN as usize).await;
        if header.is_ok_and(|header| self.config.check(range.start, &header).is_ok()) {
            return Ok(());
        }
        file.write_at(self.config.header_block(*range, 0), 0).await?;
        file.sync().await
    }
}

/// Makes a file that is shorter as long as that.
pub(super) async fn give_back_len<F: File>(file: &F, wanted: u64) -> io::Result<()> {
    let len = file.size().await?;
    if len < wanted { file.allocate(len, wanted - len).await } else { Ok(()) }
}

/// What the file says of itself; `None` if it is told, and left alone.
async fn look<E: Env>(
    env: &E,
    config: &SegmentConfig,
    range: SegmentRange,
    entry: &DirEntry,
    report: &DamageReport,
) -> Result<Option<Found>, OpenError> {
    let path = config.dir.join(&entry.name);
    let options = ringmq_env::OpenOptions { direct: true, ..Default::default() };
    let header = async { read_again(&env.open(&path, options).await?, 0, SEGMENT_HEADER_LEN as usize).await };
    let checked = match header.await {
        Ok(header) => config.check(range.start, &header),
        Err(error) => Err(HeaderProblem::Damaged(format!("the segment's header cannot be read: {error}"))),
    };
    let header_len = match checked {
        Ok(len) => Some(len),
        Err(HeaderProblem::Newer(found)) => {
            return Err(OpenError::NewerFormat { path, found, known: STORE_FORMAT });
        }
        Err(HeaderProblem::Foreign(what)) => return Err(OpenError::Damaged { path, what }),
        Err(HeaderProblem::Misplaced(start)) => {
            let what = format!("it is the log's segment of position {start}, and is left alone");
            report.tell(Damage { path, offset: 0, len: entry.len, what });
            return Ok(None);
        }
        Err(HeaderProblem::Damaged(what)) => {
            report.tell(Damage { path: path.clone(), offset: 0, len: 0, what });
            None
        }
    };
    Ok(Some(Found { start: range.start, file_len: entry.len, header_len, path }))
}

/// The segments that the files make, in log order, without overlaps.
fn fit_together(dir: &std::path::Path, found: &[Found], report: &DamageReport) -> Vec<SegmentRange> {
    let mut ranges: Vec<SegmentRange> = Vec::new();
    for (at, file) in found.iter().enumerate() {
        let until = found.get(at + 1).map(|next| next.start);
        let whole = file.file_len - file.file_len % SEGMENT_HEADER_LEN;
        let guess = || until.map_or(whole, |until| whole.min(until - file.start));
        let range = SegmentRange { start: file.start, len: file.header_len.unwrap_or_else(guess) };
        let tell = |path, offset, len, what: &str| {
            report.tell(Damage { path, offset, len, what: what.into() });
        };
        let before = ranges.last().map_or(file.start, SegmentRange::end);
        if range.start < before || range.len < MIN_SEGMENT_LEN {
            tell(file.path.clone(), 0, file.file_len, "it does not fit in the log, and is left alone");
            continue;
        }
        if range.start > before {
            let missing = SegmentRange { start: before, len: range.start - before };
            tell(dir.join(missing.file_name()), 0, missing.len, "the segment is missing");
        }
        if file.file_len < range.len {
            tell(file.path.clone(), file.file_len, range.len - file.file_len, "the file is cut off");
        }
        ranges.push(range);
    }
    ranges
}
