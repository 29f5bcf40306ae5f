//! Opening an index: the queues are what the marks and the runs' directories say.

use std::cell::RefCell;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ringmq_env::Env;

use super::keys::HotKeys;
use super::retain::{Mark, damaged_key};
use super::run::{Reader, Run};
use super::table::Table;
use super::{Index, Inner, State};
use crate::gate::Gate;
use crate::meta::{MetaLog, is_full};
use crate::shard::OpenError;
use crate::types::LogPosition;

/// Name of the marks' metadata log.
const MARKS: &str = "marks";
/// Extents applied between two yields.
const SLICE: usize = 1024;

impl<E: Env> Index<E> {
    /// Opens the index in `dir` (made if missing). The caller then scans the log from [`Index::indexed_upto`] and
    /// gives every message to [`Index::recover`]. `log_min` is where the log begins, `log_end` a position that it
    /// surely does not reach beyond: runs that do are dropped.
    pub(crate) async fn open(
        env: E,
        dir: &Path,
        log_min: LogPosition,
        log_end: LogPosition,
    ) -> Result<Index<E>, OpenError> {
        env.create_dir_all(dir).await.map_err(OpenError::at(dir))?;
        let mut marked = Vec::new();
        let marks = MetaLog::open(env.clone(), dir, MARKS, &mut |key, value| {
            marked.push(Mark::decode(key, value));
        })
        .await?;
        let mut state = State {
            table: Table::default(),
            keys: HotKeys::default(),
            runs: Rc::default(),
            indexed: log_min.0,
            log_min: log_min.0,
            bytes_written: 0,
        };
        // Deletions come first: they say which of the other marks are void.
        marked.sort_by_key(|mark| !matches!(mark, Some(Mark::Deleted { .. })));
        let mut damaged = Vec::new();
        for mark in marked {
            match mark {
                Some(Mark::Damaged(from)) => damaged.push(from),
                Some(Mark::LogMin(min)) => state.log_min = state.log_min.max(min),
                Some(mark) => state.table.apply_mark(&mark),
                None => return Err(broken(dir, "it has a mark that makes no sense")),
            }
        }
        if state.log_min > log_end.0 {
            return Err(broken(dir, "it knows more of the log to have expired than there is of it"));
        }
        state.indexed = state.log_min;
        let reader = Reader::new(env.clone());
        let mut loading = Loading { env: &env, dir, reader: &reader, state: &mut state, damaged: &damaged };
        loading.load_runs(log_end.0).await.map_err(OpenError::at(dir))?;
        damaged.iter().for_each(|from| marks.delete(&damaged_key(*from)));
        let inner = Inner {
            env,
            dir: dir.to_path_buf(),
            reader,
            marks,
            changing_runs: Gate::default(),
            state: RefCell::new(state),
        };
        let index = Index(Rc::new(inner));
        match index.set_log_min(log_min).await {
            // What has expired is only kept for longer.
            Err(error) if is_full(&error) => {}
            other => other.map_err(OpenError::at(dir))?,
        }
        Ok(index)
    }
}

/// The runs in `dir`, oldest first: where they begin and end by their names, and their paths.
async fn list_runs<E: Env>(env: &E, dir: &Path) -> io::Result<Vec<(u64, u64, PathBuf)>> {
    let mut runs = Vec::new();
    for entry in env.read_dir(dir).await? {
        let path = dir.join(&entry.name);
        if let Some(stem) = entry.name.strip_suffix(".run") {
            let range =
                stem.split_once('-').and_then(|(from, to)| Some((from.parse().ok()?, to.parse().ok()?)));
            match range {
                Some((from, to)) => runs.push((from, to, path)),
                None => tracing::warn!(path = %path.display(), "not the name of a run: left alone"),
            }
        } else if entry.name.ends_with(".tmp") {
            // A run that a crash kept from being finished. (The marks' own are finished by now.)
            env.remove_file(&path).await?;
        }
    }
    runs.sort();
    Ok(runs)
}

fn broken(dir: &Path, what: &str) -> OpenError {
    OpenError::Damaged { path: dir.join(MARKS), what: what.into() }
}

struct Loading<'a, E: Env> {
    env: &'a E,
    dir: &'a Path,
    reader: &'a Reader<E>,
    state: &'a mut State,
    /// Where the runs begin that were found damaged.
    damaged: &'a [u64],
}

impl<E: Env> Loading<'_, E> {
    /// Loads the runs in order, and drops the first that does not fit with all that are newer.
    async fn load_runs(&mut self, log_end: u64) -> io::Result<()> {
        let mut listed = list_runs(self.env, self.dir).await?;
        let expired = listed.iter().filter(|(_, to, _)| *to <= self.state.log_min);
        for (_, _, path) in expired {
            self.env.remove_file(path).await?;
        }
        listed.retain(|(_, to, _)| *to > self.state.log_min);
        let mut runs: Vec<Rc<Run>> = Vec::new();
        for (at, (from, to, path)) in listed.iter().enumerate() {
            let before = runs.last().map(|run| run.header.to);
            let loaded = match self.check_range(*from, *to, before, log_end) {
                Some(problem) => Err(problem.into()),
                None => self.load_run((*from, *to), path).await,
            };
            match loaded {
                Ok(run) => runs.push(Rc::new(run)),
                Err(problem) => {
                    self.drop_runs(&listed[at..], &problem).await?;
                    break;
                }
            }
        }
        self.state.indexed = runs.last().map_or(self.state.log_min, |run| run.header.to);
        self.state.runs = Rc::new(runs);
        Ok(())
    }

    async fn drop_runs(&self, runs: &[(u64, u64, PathBuf)], problem: &str) -> io::Result<()> {
        let path = runs[0].2.display();
        tracing::warn!(%path, problem, runs = runs.len(), "index runs dropped: rebuilt from the log");
        // The newest goes first, so that a crash leaves runs without a gap.
        for (_, _, path) in runs.iter().rev() {
            self.env.remove_file(path).await?;
        }
        self.env.sync_dir(self.dir).await
    }

    /// What is wrong with a run of this range behind one that ends at `before`.
    fn check_range(&self, from: u64, to: u64, before: Option<u64>, log_end: u64) -> Option<&'static str> {
        match before {
            None if from > self.state.log_min => Some("the run before it is missing"),
            Some(before) if from != before => Some("the run before it is missing"),
            _ if to > log_end => Some("it reaches beyond the end of the log"),
            _ if self.damaged.contains(&from) => Some("it was found damaged"),
            _ => None,
        }
    }

    async fn load_run(&mut self, range: (u64, u64), path: &Path) -> Result<Run, String> {
        let (run, directory) = self.reader.load(path).await.map_err(|error| error.to_string())?;
        if (run.header.from, run.header.to) != range {
            return Err("its header names another range than its name".into());
        }
        for part in directory.extents.chunks(SLICE) {
            for extent in part {
                let topic = directory.topic(extent).ok_or("it has an extent without a name")?;
                self.state.table.apply_extent(topic, extent);
            }
            self.env.yield_now().await;
        }
        Ok(run)
    }
}
