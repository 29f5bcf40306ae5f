//! Opening an index: the queues are what the marks and the runs' directories say, and the log where those end.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ringmq_env::Env;

use super::keys::HotKeys;
use super::retain::{Mark, damaged_key};
use super::run::{self, Reader, Run};
use super::table::Table;
use super::{Index, Inner, State};
use crate::damage::{Damage, DamageReport};
use crate::gate::Gate;
use crate::inspect::read_dir_if_any;
use crate::meta::{self, MetaLog, is_full};
use crate::shard::OpenError;
use crate::types::{LOG_END, LogPosition};

/// Name of the marks' metadata log.
const MARKS: &str = "marks";
/// Extents applied between two yields.
const SLICE: usize = 1024;

impl<E: Env> Index<E> {
    /// How far the runs in `dir` reach, by their names: so much of the log was on the device once.
    pub(crate) async fn claimed_end(env: &E, dir: &Path) -> LogPosition {
        let entries = env.read_dir(dir).await.unwrap_or_default();
        let ends = entries.iter().filter_map(|entry| Some(run_range(&entry.name)?.1));
        let ends = ends.filter(|end| *end < LOG_END.0);
        LogPosition(ends.max().unwrap_or(0))
    }

    /// Begins to open the index in `dir` (made if missing). `log_min` and `log_end` are where the log begins and ends.
    pub(crate) async fn open(
        env: E,
        dir: &Path,
        log_min: LogPosition,
        log_end: LogPosition,
        report: &DamageReport,
    ) -> Result<Opening<E>, OpenError> {
        env.create_dir_all(dir).await.map_err(OpenError::at(dir))?;
        let told_before = report.count();
        let mut marked = Vec::new();
        let marks = MetaLog::open_what_is_whole(env.clone(), dir, MARKS, report, &mut |key, value| {
            marked.push(Mark::decode(key, value));
        })
        .await?;
        let mut state = State {
            table: Table::default(),
            keys: HotKeys::default(),
            runs: Rc::default(),
            indexed: log_min.0,
            log_min: log_min.0,
            marked_min: None,
            lost: Vec::new(),
            bytes_written: 0,
        };
        let marks_are_whole = report.count() == told_before;
        let ahead: Vec<_> =
            marked.iter_mut().flatten().filter_map(|mark| mark.pull_back(log_end.0)).collect();
        if !ahead.is_empty() {
            let what = format!("it knows of positions behind the end of the log, {}", log_end.0);
            report.tell(Damage { path: dir.join(MARKS), offset: 0, len: 0, what });
        }
        ahead.iter().for_each(|(key, value)| marks.put(key, value));
        let damaged = apply_marks(&mut state, marked, dir, report);
        state.indexed = state.log_min;
        let listed = list_runs(&env, dir).await.map_err(OpenError::at(dir))?.into();
        let inner = Inner {
            reader: Reader::new(env.clone()),
            env,
            dir: dir.to_path_buf(),
            marks,
            changing_runs: Gate::default(),
            state: RefCell::new(state),
        };
        let (index, report) = (Index(Rc::new(inner)), report.clone());
        Ok(Opening {
            index,
            listed,
            damaged,
            of_lost: Vec::new(),
            marks_are_whole,
            log_min: log_min.0,
            log_end: log_end.0,
            report,
        })
    }
}

/// Takes the marks in; returns where the runs begin that were found damaged.
fn apply_marks(
    state: &mut State,
    mut marked: Vec<Option<Mark>>,
    dir: &Path,
    report: &DamageReport,
) -> Vec<u64> {
    // Deletions come first: they say which of the other marks are void.
    marked.sort_by_key(|mark| !matches!(mark, Some(Mark::Deleted { .. })));
    let mut damaged = Vec::new();
    for mark in marked {
        match mark {
            Some(Mark::Damaged(from)) => damaged.push(from),
            Some(Mark::LogMin(min)) => {
                state.log_min = state.log_min.max(min);
                state.marked_min = Some(min);
            }
            Some(Mark::Lost { from, to }) => state.lost.push((from, to)),
            Some(mark) => state.table.apply_mark(&mark),
            None => tell_senseless(dir, report),
        }
    }
    damaged
}

fn tell_senseless(dir: &Path, report: &DamageReport) {
    let what = "it has a mark that makes no sense".into();
    report.tell(Damage { path: dir.join(MARKS), offset: 0, len: 0, what });
}

/// Range of a run by its file's name, if that is one of a run.
fn run_range(name: &str) -> Option<(u64, u64)> {
    let (from, to) = name.strip_suffix(".run")?.split_once('-')?;
    Some((from.parse().ok()?, to.parse().ok()?))
}

/// Checks every block of the runs in `dir`, without changing anything; returns how many runs there are.
pub(crate) async fn check_runs<E: Env>(env: &E, dir: &Path, report: &DamageReport) -> io::Result<u64> {
    let mut runs = 0;
    for entry in read_dir_if_any(env, dir).await? {
        let Some(range) = run_range(&entry.name) else { continue };
        let path = dir.join(&entry.name);
        runs += 1;
        if let Err(error) = run::check(env, &path, range).await {
            let what = format!("index run: {error}");
            report.tell(Damage { path, offset: 0, len: 0, what });
        }
    }
    Ok(runs)
}

/// Checks the marks in `dir`, without changing anything; returns how many there are, and where the log should begin, as far
/// as that is known.
pub(crate) async fn check_marks<E: Env>(
    env: &E,
    dir: &Path,
    report: &DamageReport,
) -> Result<(u64, Option<LogPosition>), OpenError> {
    let (told_before, mut begin) = (report.count(), None);
    let marks = meta::check(env, dir, MARKS, report, &mut |key, value| match Mark::decode(key, value) {
        Some(Mark::LogMin(min)) => begin = Some(LogPosition(min)),
        Some(_) => {}
        None => tell_senseless(dir, report),
    })
    .await?;
    Ok((marks, begin.filter(|_| report.count() == told_before)))
}

/// A run's file.
struct Listed {
    from: u64,
    to: u64,
    path: PathBuf,
}

/// The runs in `dir`, oldest first, of those that begin together the longest first.
async fn list_runs<E: Env>(env: &E, dir: &Path) -> io::Result<Vec<Listed>> {
    let mut runs = Vec::new();
    for entry in env.read_dir(dir).await? {
        let path = dir.join(&entry.name);
        match run_range(&entry.name) {
            Some((from, to)) => runs.push(Listed { from, to, path }),
            // A run that a crash kept from being finished. (The marks' own are finished by now.)
            None if entry.name.ends_with(".tmp") => env.remove_file(&path).await?,
            None if entry.name.ends_with(".run") => {
                tracing::warn!(path = %path.display(), "not the name of a run: left alone");
            }
            None => {}
        }
    }
    runs.sort_by_key(|run| (run.from, std::cmp::Reverse(run.to)));
    Ok(runs)
}

/// An index that is being opened: it is brought up to date in the order of the log, from its runs, and from the log
/// where they leave a gap.
pub(crate) struct Opening<E: Env> {
    index: Index<E>,
    listed: VecDeque<Listed>,
    /// Where the runs begin that were found damaged.
    damaged: Vec<u64>,
    /// Runs of segments that are missing before the log's first one: all that says where their queues go on, until the
    /// marks do.
    of_lost: Vec<Listed>,
    /// Nothing of the marks is missing, as far as can be told.
    marks_are_whole: bool,
    log_min: u64,
    log_end: u64,
    report: DamageReport,
}

impl<E: Env> Opening<E> {
    /// The index as far as it is open: for [`Index::recover`] and [`Index::flush`].
    pub(crate) fn index(&self) -> &Index<E> {
        &self.index
    }

    /// Where the log should begin, as far as that is known: each start puts it on record, and retention before it removes a
    /// segment.
    pub(crate) fn log_should_begin(&self) -> Option<LogPosition> {
        let marked = self.index.0.state.borrow().marked_min;
        marked.filter(|_| self.marks_are_whole).map(LogPosition)
    }

    /// Takes in the runs up to the next gap, and returns that: the caller gives the messages of that stretch of the
    /// log to [`Index::recover`], flushes them as runs to its end, and calls again. `None`: all runs are in. A run
    /// that is damaged or does not fit is told, and removed.
    pub(crate) async fn next_gap(&mut self) -> Result<Option<(LogPosition, LogPosition)>, OpenError> {
        let dir = self.index.0.dir.clone();
        while let Some(run) = self.listed.pop_front() {
            let indexed = self.index.indexed_upto().0;
            let begins_before = self.index.0.state.borrow().runs.is_empty() && run.from <= indexed;
            let problem = if self.is_of_lost(&run) {
                match self.apply(&run, false).await {
                    Ok(_) => {
                        self.of_lost.push(run);
                        continue;
                    }
                    Err(problem) => Some(problem),
                }
            } else if run.to <= indexed {
                // Expired, or merged into a longer one.
                None
            } else if run.to > self.log_end {
                Some("it reaches beyond the end of the log".into())
            } else if run.from > indexed && run.from < run.to {
                let gap = (LogPosition(indexed), LogPosition(run.from));
                self.listed.push_front(run);
                return Ok(Some(gap));
            } else if self.damaged.contains(&run.from) {
                Some("it was found damaged".into())
            } else if run.from != indexed && !begins_before {
                Some("it overlaps another one".into())
            } else {
                match self.load(&run).await {
                    Ok(()) => continue,
                    Err(problem) => Some(problem),
                }
            };
            if let Some(problem) = problem {
                let what = format!("index run: {problem}; rebuilt from the log");
                self.report.tell(Damage { path: run.path.clone(), offset: 0, len: 0, what });
            }
            self.index.0.env.remove_file(&run.path).await.map_err(OpenError::at(&run.path))?;
            self.index.0.env.sync_dir(&dir).await.map_err(OpenError::at(&dir))?;
        }
        Ok(None)
    }

    /// Takes the run in.
    async fn load(&self, listed: &Listed) -> Result<(), String> {
        let run = self.apply(listed, true).await?;
        let mut state = self.index.0.state.borrow_mut();
        state.indexed = run.header.to;
        let mut runs = state.runs.to_vec();
        runs.push(Rc::new(run));
        state.runs = Rc::new(runs);
        Ok(())
    }

    /// Takes in what the run says of where its queues are; if its messages are not there any more, no more than where the
    /// queues go on.
    async fn apply(&self, listed: &Listed, is_kept: bool) -> Result<Run, String> {
        let index = &*self.index.0;
        let (run, directory) = index.reader.load(&listed.path).await.map_err(|error| error.to_string())?;
        if (run.header.from, run.header.to) != (listed.from, listed.to) {
            return Err("its header names another range than its name".into());
        }
        if directory.extents.iter().any(|extent| directory.topic(extent).is_none()) {
            return Err("it has an extent without a name".into());
        }
        for part in directory.extents.chunks(SLICE) {
            for extent in part {
                let topic = directory.topic(extent).expect("looked at above");
                let table = &mut index.state.borrow_mut().table;
                table.apply_extent(topic, extent);
                if !is_kept {
                    table.raise_known_min(topic, extent, extent.end());
                }
            }
            index.env.yield_now().await;
        }
        Ok(run)
    }

    /// The index, once it is up to date.
    pub(crate) async fn finish(self) -> Result<Index<E>, OpenError> {
        for (from, to) in self.lost_before() {
            self.index.mark_lost(from, to);
        }
        let Opening { index, log_min, damaged, of_lost, .. } = self;
        // Their runs are gone, durably.
        damaged.iter().for_each(|from| index.0.marks.delete(&damaged_key(*from)));
        index.skip_lost().await;
        // What recovery found of the log is on the device.
        match index.set_log_min(LogPosition(log_min), LOG_END).await {
            // What has expired is only kept for longer.
            Err(error) if is_full(&error) => return Ok(index),
            other => other.map_err(OpenError::at(&index.0.dir))?,
        }
        // The marks say now where their queues go on.
        for run in &of_lost {
            index.0.env.remove_file(&run.path).await.map_err(OpenError::at(&run.path))?;
        }
        Ok(index)
    }

    /// Whether a run covers what is missing of the log before its first segment: it has not expired.
    fn is_of_lost(&self, run: &Listed) -> bool {
        run.to <= self.log_min && run.to > self.index.0.state.borrow().marked_min.unwrap_or(0)
    }

    /// What is missing of the log before its first segment, and in no run.
    fn lost_before(&self) -> Vec<(LogPosition, LogPosition)> {
        let Some(begin) = self.log_should_begin() else { return Vec::new() };
        let kept = self.index.0.state.borrow().runs.first().map_or(self.log_min, |run| run.header.from);
        let kept = (kept.min(self.log_min), self.log_min);
        let (mut at, mut lost) = (begin.0, Vec::new());
        for (from, to) in self.of_lost.iter().map(|run| (run.from, run.to)).chain([kept]) {
            if at < from {
                lost.push((LogPosition(at), LogPosition(from)));
            }
            at = at.max(to);
        }
        lost
    }
}
