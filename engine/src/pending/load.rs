//! From disk to memory: opening the table, and loading what is due next.

use std::io;
use std::path::Path;

use ringmq_env::{Env, mutant};

use super::run::RunReader;
use super::state_file::{FORMAT, STATE_FILE, Saved, StateError};
use super::*;
use crate::shard::OpenError;
use crate::slices::{LOOK, Pacer};

/// Entries taken into memory at a time.
const TAKEN_IN: usize = LOOK;
/// What is due within this time is loaded.
const AHEAD_MS: i64 = 10_000;

impl<E: Env> Pending<E> {
    /// Opens the table in `dir` (made if missing). The caller then scans the log from [`Pending::upto`] and gives
    /// every record to [`Pending::recover`]. `memory_entries` are held in memory when there are more; `log_min` is where the log begins, `log_end` a position that it surely
    /// does not reach beyond.
    pub(crate) async fn open(
        env: E,
        kind: PendingKind,
        dir: &Path,
        memory_entries: usize,
        log_min: LogPosition,
        log_end: LogPosition,
    ) -> Result<Pending<E>, OpenError> {
        env.create_dir_all(dir).await.map_err(OpenError::at(dir))?;
        let path = dir.join(STATE_FILE);
        let saved = match Saved::read(&env, dir).await.map_err(OpenError::at(&path))? {
            Some(Ok(saved)) if (log_min.0..=log_end.0).contains(&saved.upto) => saved,
            Some(Ok(saved)) if saved.upto < log_min.0 => {
                tracing::warn!(path = %path.display(), "the log was deleted further than it knows: the rest is scanned");
                Saved { upto: log_min.0, ..Saved::default() }
            }
            None => Saved { upto: log_min.0, ..Saved::default() },
            Some(Err(StateError::Newer(found))) => {
                return Err(OpenError::NewerFormat { path, found, known: FORMAT });
            }
            Some(_) => {
                tracing::error!(path = %path.display(), "damaged: the whole log is scanned instead");
                Saved { upto: log_min.0, ..Saved::default() }
            }
        };
        let pending = Pending(Rc::new(Inner {
            env,
            kind,
            dir: dir.to_path_buf(),
            limits: Limits::of(memory_entries),
            loading: Gate::default(),
            state: RefCell::new(State::from_saved(saved)),
            changed: Signal::default(),
        }));
        pending.check_runs(log_min).await?;
        pending.tidy().await.map_err(OpenError::at(dir))?;
        Ok(pending)
    }

    /// Removes the files that no state names.
    async fn tidy(&self) -> io::Result<()> {
        let pending = &*self.0;
        let runs = Rc::clone(&pending.state.borrow().runs);
        for entry in pending.env.read_dir(&pending.dir).await? {
            let path = pending.dir.join(&entry.name);
            let is_ours = entry.name.ends_with(".run") || entry.name.ends_with(".new");
            if is_ours && !runs.iter().any(|run| run.path(&pending.dir) == path) {
                pending.env.remove_file(&path).await?;
            }
        }
        Ok(())
    }

    /// A run that cannot be read makes all worthless: the table is made from the whole log then.
    async fn check_runs(&self, log_min: LogPosition) -> Result<(), OpenError> {
        let pending = &*self.0;
        let runs = Rc::clone(&pending.state.borrow().runs);
        for run in runs.iter() {
            let opened = RunReader::open(&pending.env, &pending.dir, run).await;
            match opened {
                Ok(_) => {}
                Err(error) if is_damage(&error) => {
                    let path = run.path(&pending.dir);
                    tracing::error!(path = %path.display(), %error, "damaged: the whole log is scanned instead");
                    let saved = Saved { upto: log_min.0, ..Saved::default() };
                    *pending.state.borrow_mut() = State::from_saved(saved);
                    return Ok(());
                }
                Err(source) => return Err(OpenError::Io { path: run.path(&pending.dir), source }),
            }
        }
        Ok(())
    }

    /// A record that the scan of the log found, in log order; it is counted if it comes behind [`Pending::upto`].
    /// `settles` is the position of an earlier record that it settles, `waits` says that it waits itself.
    pub(crate) fn recover(&self, position: LogPosition, settles: Option<u64>, waits: Option<PendingRecord>) {
        let mut state = self.0.state.borrow_mut();
        if position.0 < state.upto {
            return;
        }
        // First, as at a commit: a record that is put off may have the key of the one that it takes the place of.
        if let Some(settled) = settles.filter(|_| !mutant!("settling-not-recovered")) {
            state.recover_settled(settled);
        }
        if let Some(record) = waits {
            state.recovered.insert(record.position.0, record.key());
            state.memory.insert(record.key(), record.place());
            state.fresh.push_back((position.0, record.key()));
            state.count += 1;
        }
    }

    /// The scan of the log is over.
    pub(crate) fn recovered(&self) {
        self.0.state.borrow_mut().recovered = HashMap::default();
        self.0.changed.notify();
    }

    /// Up to `max` records that are due at `now_ms`, the earliest first. They go on waiting until they are settled.
    pub(crate) async fn due(&self, now_ms: i64, max: usize) -> io::Result<Vec<PendingRecord>> {
        while self.is_load_due(now_ms) {
            self.load().await?;
            self.0.env.yield_now().await;
        }
        let state = self.0.state.borrow();
        let due = state.memory.iter().take_while(|(key, _)| key.due_ms <= now_ms && **key < state.horizon);
        Ok(due.take(max).map(|(key, place)| PendingRecord::new(self.0.kind, *key, *place)).collect())
    }

    fn is_load_due(&self, now_ms: i64) -> bool {
        let (state, limits) = (self.0.state.borrow(), self.0.limits);
        let is_near = state.horizon.due_ms <= now_ms.saturating_add(AHEAD_MS);
        let is_room = state.memory.len() < limits.memory;
        // What is due already must be loaded, however much there is.
        let first = state.memory.first_key_value().map_or(Key::MAX, |(key, _)| *key);
        let is_needed = state.horizon.due_ms <= now_ms && state.horizon <= first;
        state.horizon != Key::MAX && (is_needed || is_room && (is_near || state.memory.len() < limits.low))
    }

    /// Loads the next entries of the runs.
    async fn load(&self) -> io::Result<()> {
        let pending = &*self.0;
        let _pass = pending.loading.enter().await;
        let (runs, from) = {
            let state = pending.state.borrow();
            (Rc::clone(&state.runs), state.horizon)
        };
        if from == Key::MAX {
            return Ok(());
        }
        let mut loaded = Vec::new();
        let mut horizon = Key::MAX;
        for run in runs.iter() {
            match self.read_run(run, from).await {
                Ok((entries, next)) => {
                    loaded.push(entries);
                    horizon = horizon.min(next);
                }
                // Merged meanwhile: the caller tries again.
                Err(_) if !Rc::ptr_eq(&pending.state.borrow().runs, &runs) => return Ok(()),
                Err(error) if is_damage(&error) => self.distrust(run, &error).await,
                Err(error) => return Err(error),
            }
        }
        let (mut taken, mut pacer) = (from, Pacer::new(&pending.env));
        while taken < horizon {
            {
                let mut state = pending.state.borrow_mut();
                if !Rc::ptr_eq(&state.runs, &runs) || state.horizon != taken {
                    return Ok(());
                }
                state.take_in(&mut loaded, horizon);
                taken = state.horizon;
            }
            pacer.done(TAKEN_IN).await;
        }
        Ok(())
    }

    /// Reads some entries of a run from `from` on; returns them, and the key of the first that was not read.
    async fn read_run(&self, run: &Run, from: Key) -> io::Result<(VecDeque<(Key, Place)>, Key)> {
        let pending = &*self.0;
        let mut loaded = VecDeque::with_capacity(pending.limits.load);
        let mut reader = RunReader::open(&pending.env, &pending.dir, run).await?;
        reader.seek(from.max(run.low)).await?;
        while loaded.len() < pending.limits.load {
            let Some(entry) = reader.peek().await? else { return Ok((loaded, Key::MAX)) };
            loaded.push_back(entry);
            reader.take();
        }
        let next = reader.peek().await?.map_or(Key::MAX, |(key, _)| key);
        Ok((loaded, next))
    }

    /// Whether the record waits and nothing that settles it is staged; if so, it is in memory when this returns, so that
    /// [`Pending::begin_settle`] takes it unless the caller awaits something in between. Error: that cannot be read. Cancel
    /// safe: what it has read goes unused.
    pub(crate) async fn still_waits(&self, record: &PendingRecord) -> io::Result<bool> {
        let (key, position) = (record.key(), record.position.0);
        loop {
            let (runs, run) = {
                let state = self.0.state.borrow();
                if state.is_in_memory(key, position) {
                    return Ok(true);
                }
                let Some(run) = state.run_to_search(key, position) else { return Ok(false) };
                (Rc::clone(&state.runs), run.clone())
            };
            if mutant!("runs-not-searched") {
                self.0.state.borrow_mut().memory.insert(key, record.place());
                return Ok(true);
            }
            let found = self.find(&run, key).await;
            // The run may be merged meanwhile, and what was settled then is nowhere any more: the search begins anew.
            if !Rc::ptr_eq(&self.0.state.borrow().runs, &runs) {
                continue;
            }
            match found {
                Ok(found) => {
                    let mut state = self.0.state.borrow_mut();
                    let waits = state.run_to_search(key, position).is_some();
                    let found = found.filter(|place| waits && place.position == position);
                    state.memory.extend(found.map(|place| (key, place)));
                    return Ok(state.is_in_memory(key, position));
                }
                Err(error) => {
                    if is_damage(&error) {
                        self.distrust(&run, &error).await;
                    }
                    return Err(error);
                }
            }
        }
    }

    /// What the run has with this key.
    async fn find(&self, run: &Run, key: Key) -> io::Result<Option<Place>> {
        let mut reader = RunReader::open(&self.0.env, &self.0.dir, run).await?;
        reader.seek(key).await?;
        let found = reader.peek().await?.filter(|(next, _)| *next == key);
        Ok(found.map(|(_, place)| place))
    }

    /// Something in the runs is not what was written: the next start makes the table anew, from the log.
    pub(super) async fn distrust(&self, run: &Run, error: &io::Error) {
        let pending = &*self.0;
        let path = run.path(&pending.dir);
        tracing::error!(path = %path.display(), %error, "damaged: some records wait until the next start");
        pending.state.borrow_mut().distrusted = true;
        self.remove_state().await;
    }

    pub(super) async fn remove_state(&self) {
        let pending = &*self.0;
        let removed = match pending.env.remove_file(&pending.dir.join(STATE_FILE)).await {
            Ok(()) => pending.env.sync_dir(&pending.dir).await,
            failed => failed,
        };
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::error!(%error, "the state of the waiting records cannot be removed");
            }
            _ => {}
        }
    }
}

/// Which of them begins with the earliest key, and that key.
fn earliest(loaded: &[VecDeque<(Key, Place)>]) -> Option<(usize, Key)> {
    let firsts = loaded.iter().enumerate().filter_map(|(at, entries)| Some((at, entries.front()?.0)));
    firsts.min_by_key(|(_, key)| *key)
}

pub(super) fn is_damage(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof | io::ErrorKind::NotFound
    )
}

impl State {
    /// The scan of the log found what settles the record at a position.
    fn recover_settled(&mut self, settled: u64) {
        if let Some(key) = self.recovered.remove(&settled) {
            self.memory.remove(&key);
            self.count_out();
        } else if self.run_of(settled).is_some() && !self.gone.contains_key(&settled) {
            self.gone.insert(settled, None);
            self.count_out();
        }
    }

    fn from_saved(saved: Saved) -> State {
        let horizon = saved.runs.iter().map(|run| run.low).min().unwrap_or(Key::MAX);
        State {
            memory: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            horizon,
            runs: Rc::new(saved.runs),
            gone: saved.gone,
            recovered: HashMap::default(),
            upto: saved.upto,
            fresh: VecDeque::new(),
            count: saved.count,
            taking: None,
            distrusted: false,
        }
    }

    /// Takes in the next of what the runs have from the horizon on, up to `end`, and raises the horizon as far.
    fn take_in(&mut self, loaded: &mut [VecDeque<(Key, Place)>], end: Key) {
        for _ in 0..TAKEN_IN {
            let Some(first) = earliest(loaded).filter(|(_, key)| *key < end) else {
                self.horizon = end;
                return;
            };
            let Some((key, place)) = loaded[first.0].pop_front() else { return };
            if let Some(known) = self.gone.get_mut(&place.position) {
                *known = Some(key);
            } else if !self.in_flight.contains_key(&key) {
                self.memory.insert(key, place);
            }
        }
        self.horizon = earliest(loaded).map_or(end, |(_, key)| key.min(end));
    }
}
