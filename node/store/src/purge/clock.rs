//! The purge clock: for each thing a purge can name, the position of the newest purge that named it.
//!
//! Always true:
//! - A stored response may be used only if nothing that names it is newer than the position at which its fetch began.
//! - Once `latest()` shows a position, every purge up to it is in the table.
//! - The table is bounded: when too many marks are live the older ones are folded into buckets that many names share.
//!   Coarser, never weaker: a response that shares a bucket with a newer purge is taken for purged.
//! - Predicates (what `Match` and `Variant` say) are kept as they are, [`PREDICATES_MAX`] of them; the oldest is folded into what covers
//!   all that it can hold for. A response is asked by those that came after its last check only.
//! - A mark is forgotten only when nothing that was fetched before it can exist any more (`horizon`). Should something exist all
//!   the same, it is taken for purged: what is forgotten is forgotten into the mark of everything.
//! - Its lock is held for a purge, or for some hundred marks, never for all of them.
//! - A response that was checked at the latest position answers from its own cell: no lock, no look-up.
//!
//! Not here: durability (`log`), the order in which purges get positions (`committer`).

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};

use brim_semantics::PurgeState;
use parking_lot::RwLock;

use super::{Matcher, Names, Position, PurgeMode};

/// Names with a mark of their own. 16 bytes a mark and as much again for the table: 16 MiB at most.
pub(crate) const TABLE_MARKS_MAX: usize = 262_144;
/// Buckets for older marks, made when the first are folded: 16 MiB. A response is taken for purged by mistake with a
/// chance of about (marks folded since its fetch / this), for each of its names.
const BUCKETS: usize = 1 << 20;
/// Prefixes with a mark of their own under one authority; each is compared on a check. Beyond it the authority is marked.
pub(crate) const PREFIXES_MAX: usize = 256;
/// Authorities with prefix marks. Beyond it everything is marked.
pub(crate) const PREFIX_AUTHORITIES_MAX: usize = 4096;

/// Predicates with a mark of their own; each newer than its last check is asked of a response once.
pub(crate) const PREDICATES_MAX: usize = 256;

/// The newest hard and the newest soft purge of a name; 0 is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Marks {
    pub(crate) hard: u64,
    pub(crate) soft: u64,
}

impl Marks {
    pub(crate) fn raise(&mut self, position: Position, mode: PurgeMode) {
        let mark = match mode {
            PurgeMode::Hard => &mut self.hard,
            PurgeMode::Soft => &mut self.soft,
        };
        *mark = (*mark).max(position.0);
    }

    pub(crate) fn join(&mut self, other: Self) {
        self.hard = self.hard.max(other.hard);
        self.soft = self.soft.max(other.soft);
    }

    fn newest(self) -> u64 {
        self.hard.max(self.soft)
    }
}

/// By authority: prefixes of paths.
type Prefixes = HashMap<u64, Vec<(Box<str>, Marks)>>;

/// Marks that are looked at under one hold of the lock, and for one that has to be folded.
const FOLD_TRIES_MAX: usize = 64;
const TRIM_AT_ONCE: usize = 512;

/// All marks. Plain data: the log writes it out whole as a checkpoint.
#[derive(Debug, Default)]
pub(crate) struct Table {
    pub(crate) latest: Position,
    pub(crate) everything: Marks,
    pub(crate) named: HashMap<u64, Marks>,
    /// Each name of `named` once, about in the order of their marks: a position that it had, and the name.
    order: VecDeque<(u64, u64)>,
    /// Hard and soft mark each; empty, or [`BUCKETS`] of them.
    buckets: Vec<[u64; 2]>,
    /// The newest mark in a bucket.
    buckets_newest: u64,
    pub(crate) prefixes: Prefixes,
    /// [`Matcher::Variant`] and [`Matcher::Match`], each once.
    pub(crate) predicates: Vec<(Matcher, Marks)>,
    /// What is to be dropped when nobody waits.
    discarded: Vec<Prefixes>,
}

impl PartialEq for Table {
    /// The order is no part of what a table says.
    fn eq(&self, other: &Self) -> bool {
        self.latest == other.latest
            && self.everything == other.everything
            && self.named == other.named
            && self.buckets == other.buckets
            && self.prefixes == other.prefixes
            && self.predicates == other.predicates
    }
}

impl Table {
    /// Without a mark; the next purge comes after this position.
    pub(crate) fn beginning_at(latest: Position) -> Self {
        Self { latest, ..Self::default() }
    }

    pub(crate) fn apply(&mut self, matcher: &Matcher, position: Position, mode: PurgeMode) {
        match matcher {
            Matcher::Everything => {
                self.everything.raise(position, mode);
                if mode == PurgeMode::Hard {
                    // Whatever is older is covered by it.
                    self.named.clear();
                    self.order.clear();
                    self.buckets = Vec::new();
                    self.buckets_newest = 0;
                    self.predicates.clear();
                    self.discarded.push(std::mem::take(&mut self.prefixes));
                }
            }
            Matcher::Named(names) => {
                let mut marks = Marks::default();
                marks.raise(position, mode);
                names.iter().for_each(|name| self.join_name(*name, marks));
            }
            Matcher::Prefix { authority, path_prefix } => {
                let mut marks = Marks::default();
                marks.raise(position, mode);
                self.join_prefix(*authority, path_prefix, marks);
            }
            Matcher::Variant(_) | Matcher::Match(_) => {
                let mut marks = Marks::default();
                marks.raise(position, mode);
                self.join_predicate(matcher.clone(), marks);
            }
        }
        self.latest = self.latest.max(position);
    }

    pub(crate) fn join_prefix(&mut self, authority: u64, path_prefix: &str, marks: Marks) {
        if self.prefixes.len() >= PREFIX_AUTHORITIES_MAX && !self.prefixes.contains_key(&authority) {
            for (_, prefixes) in self.prefixes.drain() {
                prefixes.iter().for_each(|(_, marks)| self.everything.join(*marks));
            }
        }
        let prefixes = self.prefixes.entry(authority).or_default();
        if let Some((_, known)) = prefixes.iter_mut().find(|(prefix, _)| **prefix == *path_prefix) {
            known.join(marks);
            return;
        }
        prefixes.push((path_prefix.into(), marks));
        if prefixes.len() > PREFIXES_MAX {
            let mut all = Marks::default();
            prefixes.drain(..).for_each(|(_, marks)| all.join(marks));
            prefixes.push(("".into(), all));
        }
    }

    pub(crate) fn join_predicate(&mut self, predicate: Matcher, marks: Marks) {
        if let Some((_, known)) = self.predicates.iter_mut().find(|(known, _)| *known == predicate) {
            known.join(marks);
            return;
        }
        self.predicates.push((predicate, marks));
        if self.predicates.len() <= PREDICATES_MAX {
            return;
        }
        let oldest = (0..self.predicates.len()).min_by_key(|at| self.predicates[*at].1.newest()).unwrap_or(0);
        let (predicate, marks) = self.predicates.swap_remove(oldest);
        match predicate.cover() {
            Some(name) => self.join_name(name, marks),
            None => self.everything.join(marks),
        }
    }

    pub(crate) fn join_name(&mut self, name: u64, marks: Marks) {
        let known = self.named.entry(name).or_default();
        if *known == Marks::default() {
            self.order.push_back((marks.newest(), name));
        }
        known.join(marks);
        if self.named.len() > TABLE_MARKS_MAX {
            self.fold_one();
        }
    }

    pub(crate) fn join_bucket(&mut self, bucket: u64, marks: Marks) {
        if self.buckets.is_empty() {
            self.buckets = vec![[0; 2]; BUCKETS];
        }
        let known = &mut self.buckets[bucket_of(bucket)];
        *known = [known[0].max(marks.hard), known[1].max(marks.soft)];
        self.buckets_newest = self.buckets_newest.max(marks.newest());
    }

    /// Buckets that have a mark, by number.
    pub(crate) fn buckets(&self) -> impl Iterator<Item = (u64, Marks)> {
        let marked = (0_u64..).zip(&self.buckets).filter(|(_, marks)| **marks != [0; 2]);
        marked.map(|(bucket, [hard, soft])| (bucket, Marks { hard: *hard, soft: *soft }))
    }

    /// Folds an old mark into its bucket. One that was raised since it was put in order is given another round, within reason.
    fn fold_one(&mut self) {
        for tried in 1.. {
            let Some((position, name)) = self.order.pop_front() else { return };
            let Some(marks) = self.named.get(&name).copied() else { continue };
            if marks.newest() > position && tried < FOLD_TRIES_MAX {
                self.order.push_back((marks.newest(), name));
                continue;
            }
            self.named.remove(&name);
            self.join_bucket(name, marks);
            return;
        }
    }

    /// Forgets marks that are not newer than `oldest`, among the first `at_most` in order. Returns how many were looked at and
    /// how many are gone.
    fn trim_names(&mut self, oldest: u64, at_most: usize) -> (usize, usize) {
        let (mut looked, mut gone) = (0, 0);
        while looked < at_most {
            let Some((_, name)) = self.order.pop_front() else { break };
            looked += 1;
            match self.named.get(&name) {
                Some(marks) if marks.newest() > oldest => self.order.push_back((marks.newest(), name)),
                Some(_) => {
                    self.named.remove(&name);
                    gone += 1;
                }
                None => {}
            }
        }
        (looked, gone)
    }

    fn trim_others(&mut self, oldest: u64) -> usize {
        // Before any mark goes. A checkpoint has it, so that it holds after a restart, too.
        self.everything.raise(Position(oldest), PurgeMode::Hard);
        if self.buckets_newest <= oldest {
            self.buckets = Vec::new();
            self.buckets_newest = 0;
        }
        let before = self.prefixes_count();
        self.prefixes.retain(|_, prefixes| {
            prefixes.retain(|(_, marks)| marks.newest() > oldest);
            !prefixes.is_empty()
        });
        self.predicates.retain(|(_, marks)| marks.newest() > oldest);
        before - self.prefixes_count()
    }

    fn prefixes_count(&self) -> usize {
        self.prefixes.values().map(Vec::len).sum::<usize>() + self.predicates.len()
    }

    /// The marks of what names a response; of predicates those that were raised after `since`.
    fn marks_of(&self, names: &Names, since: u64) -> Marks {
        let mut marks = self.everything;
        let mut join = |name: &u64| {
            if let Some(found) = self.named.get(name) {
                marks.join(*found);
            }
            if let Some([hard, soft]) = self.buckets.get(bucket_of(*name)) {
                marks.join(Marks { hard: *hard, soft: *soft });
            }
        };
        if !self.named.is_empty() || !self.buckets.is_empty() {
            join(&names.site);
            join(&names.url);
            names.keys.iter().for_each(join);
        }
        if let Some(prefixes) = self.prefixes.get(&names.authority) {
            let matching = prefixes.iter().filter(|(prefix, _)| names.path().starts_with(&**prefix));
            matching.for_each(|(_, found)| marks.join(*found));
        }
        let newer = self.predicates.iter().filter(|(_, marks)| marks.newest() > since);
        newer.filter(|(predicate, _)| predicate.matches(names)).for_each(|(_, found)| marks.join(*found));
        marks
    }

    pub(crate) fn state(&self, names: &Names, fetched_at: Position) -> PurgeState {
        self.state_since(names, fetched_at, fetched_at.0)
    }

    /// The same, where it is known what the predicates up to `since` make of it.
    fn state_since(&self, names: &Names, fetched_at: Position, since: u64) -> PurgeState {
        let marks = self.marks_of(names, since);
        if marks.hard > fetched_at.0 {
            PurgeState::Hard
        } else if marks.soft > fetched_at.0 {
            PurgeState::Soft
        } else {
            PurgeState::Live
        }
    }

    /// Whether a hard purge has hit it, and none after this position.
    pub(crate) fn is_gone_since(&self, names: &Names, fetched_at: Position, newest: Position) -> bool {
        let hard = self.marks_of(names, fetched_at.0).hard;
        hard > fetched_at.0 && hard <= newest.0
    }

    pub(crate) fn marks_count(&self) -> usize {
        self.named.len() + self.prefixes_count()
    }
}

fn bucket_of(name: u64) -> usize {
    usize::try_from(name % BUCKETS as u64).unwrap_or(0)
}

/// The table as the request path sees it.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    latest: AtomicU64,
    table: RwLock<Table>,
}

/// The position of the last check and its outcome, in one word: `position << 2 | outcome`; outcome 0 is "never checked".
#[derive(Debug, Default)]
pub(crate) struct Checked(AtomicU64);

const LIVE: u64 = 1;
const SOFT: u64 = 2;
const HARD: u64 = 3;

impl Clock {
    pub(crate) fn new(table: Table) -> Self {
        Self { latest: AtomicU64::new(table.latest.0), table: RwLock::new(table) }
    }

    pub(crate) fn latest(&self) -> Position {
        Position(self.latest.load(Ordering::Acquire))
    }

    /// Makes purges visible. Called in the order of their positions, by the committer alone.
    pub(crate) fn apply<'a>(&self, purges: impl Iterator<Item = (&'a Matcher, Position, PurgeMode)>) {
        let mut table = self.table.write();
        for (matcher, position, mode) in purges {
            table.apply(matcher, position, mode);
        }
        self.latest.store(table.latest.0, Ordering::Release);
        let discarded = std::mem::take(&mut table.discarded);
        drop(table);
        drop(discarded);
    }

    /// Forgets the purges up to `oldest`: nothing that exists was fetched before it. Returns how many marks are gone.
    pub(crate) fn trim(&self, oldest: Position) -> usize {
        let Some(mut gone) = self.change_unhurried(|table| table.trim_others(oldest.0)) else { return 0 };
        let mut left = self.table.read().order.len();
        while left > 0 {
            let names = |table: &mut Table| table.trim_names(oldest.0, left.min(TRIM_AT_ONCE));
            let Some((looked, removed)) = self.change_unhurried(names) else { break };
            gone += removed;
            left = if looked == 0 { 0 } else { left - looked };
        }
        gone
    }

    /// A change that is not in a hurry: it does not stand in the way of readers while another one is encoding a checkpoint.
    fn change_unhurried<R>(&self, change: impl FnOnce(&mut Table) -> R) -> Option<R> {
        const TRIES: usize = 1000;
        for _ in 0..TRIES {
            if let Some(mut table) = self.table.try_write() {
                return Some(change(&mut table));
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        None
    }

    pub(crate) fn marks_count(&self) -> usize {
        self.table.read().marks_count()
    }

    /// O(1) when nothing was purged since the last check of this response.
    #[inline]
    pub(crate) fn state(&self, names: &Names, fetched_at: Position, checked: &Checked) -> PurgeState {
        let cached = checked.0.load(Ordering::Relaxed);
        if cached >> 2 == self.latest.load(Ordering::Acquire) {
            match cached & 3 {
                LIVE => return PurgeState::Live,
                SOFT => return PurgeState::Soft,
                HARD => return PurgeState::Hard,
                _ => {}
            }
        }
        self.check(names, fetched_at, checked)
    }

    #[cold]
    fn check(&self, names: &Names, fetched_at: Position, checked: &Checked) -> PurgeState {
        let table = self.table.read();
        // What was found before holds for ever: it is the same response, and marks only rise.
        let before = checked.0.load(Ordering::Relaxed);
        let since = if before & 3 == 0 { fetched_at.0 } else { fetched_at.0.max(before >> 2) };
        let state = match (before & 3, table.state_since(names, fetched_at, since)) {
            (HARD, _) => PurgeState::Hard,
            (SOFT, PurgeState::Live) => PurgeState::Soft,
            (_, found) => found,
        };
        let outcome = match state {
            PurgeState::Live => LIVE,
            PurgeState::Soft => SOFT,
            PurgeState::Hard => HARD,
        };
        checked.0.store(table.latest.0 << 2 | outcome, Ordering::Relaxed);
        state
    }

    /// The same without a cell to remember it in.
    pub(crate) fn state_now(&self, names: &Names, fetched_at: Position) -> PurgeState {
        self.table.read().state(names, fetched_at)
    }

    pub(crate) fn with_table<R>(&self, look: impl FnOnce(&Table) -> R) -> R {
        look(&self.table.read())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::purge::Selector;
    use crate::response::Scope;

    fn names(path: &str) -> Names {
        let scope = Scope { site: "s".into(), authority: "a".into(), path: path.into(), query: None };
        Names::of_scope(&scope, &["k".into()])
    }

    fn url(path: &str) -> Matcher {
        Matcher::of(&Selector::Url { authority: "a".into(), path: path.into(), query: None })
    }

    #[test]
    fn a_purge_hits_what_was_fetched_before_it_and_spares_what_came_after() {
        let clock = Clock::default();
        let (names, checked) = (names("/1"), Checked::default());
        assert_eq!(clock.state(&names, Position(0), &checked), PurgeState::Live);
        clock.apply([(&url("/1"), Position(1), PurgeMode::Soft)].into_iter());
        assert_eq!(clock.state(&names, Position(0), &checked), PurgeState::Soft);
        clock.apply([(&url("/1"), Position(2), PurgeMode::Hard)].into_iter());
        assert_eq!(clock.state(&names, Position(0), &checked), PurgeState::Hard);
        assert_eq!(clock.state_now(&names, Position(1)), PurgeState::Hard);
        assert_eq!(clock.state_now(&names, Position(2)), PurgeState::Live);
        clock.apply([(&url("/other"), Position(3), PurgeMode::Hard)].into_iter());
        assert_eq!(clock.state_now(&names, Position(2)), PurgeState::Live);
    }

    /// More live marks than the table holds: the older ones cover everything fetched before them.
    #[test]
    fn a_full_table_forgets_no_purge() {
        let mut table = Table::default();
        let count = TABLE_MARKS_MAX as u64 * 3 / 2;
        for position in 1..=count {
            table.apply(&url(&format!("/{position}")), Position(position), PurgeMode::Hard);
        }
        assert!(table.marks_count() <= TABLE_MARKS_MAX);
        for position in [1, 2, count / 2, count / 2 + 1, count - 1, count] {
            let names = names(&format!("/{position}"));
            assert_eq!(table.state(&names, Position(position - 1)), PurgeState::Hard, "{position}");
        }
        assert_eq!(table.state(&names("/1"), Position(count)), PurgeState::Live);
        // And hits few others: one in eight by chance.
        let spared = (0..1000).filter(|n| table.state(&names(&format!("/other/{n}")), Position(0)) == PurgeState::Live);
        assert!(spared.count() > 500);
    }

    /// A name that is purged again and again stays exact, and costs one mark.
    #[test]
    fn a_mark_that_is_raised_again_is_not_the_first_to_be_folded() {
        let mut table = Table::default();
        for position in 1..=TABLE_MARKS_MAX as u64 + 10 {
            table.apply(&url(&format!("/{position}")), Position(position), PurgeMode::Hard);
            table.apply(&url("/1"), Position(position), PurgeMode::Hard);
        }
        assert_eq!(table.order.len(), table.named.len());
        assert!(table.named.contains_key(&names("/1").url), "the newest of all");
        assert!(!table.named.contains_key(&names("/2").url));
        assert_eq!(table.state(&names("/2"), Position(1)), PurgeState::Hard);
    }

    #[test]
    fn what_nothing_can_be_named_by_is_forgotten() {
        let clock = Clock::default();
        let purges: Vec<_> = (1..=2_000).map(|n| (url(&format!("/{n}")), Position(n), PurgeMode::Hard)).collect();
        clock.apply(purges.iter().map(|(matcher, position, mode)| (matcher, *position, *mode)));
        let prefix = Matcher::of(&Selector::Prefix { authority: "a".into(), path_prefix: "/p".into() });
        clock.apply([(&prefix, Position(2_001), PurgeMode::Soft)].into_iter());
        clock.apply([(&url("/1"), Position(2_002), PurgeMode::Hard)].into_iter());
        assert_eq!(clock.trim(Position(1_500)), 1_499, "all up to there but the first, which was purged again");
        assert_eq!(clock.state_now(&names("/1"), Position(2_001)), PurgeState::Hard);
        assert_eq!(clock.state_now(&names("/7"), Position(6)), PurgeState::Hard, "forgotten, and refused all the same");
        assert_eq!(clock.state_now(&names("/7"), Position(1_500)), PurgeState::Live);
        assert_eq!(clock.state_now(&names("/1501"), Position(1_500)), PurgeState::Hard);
        assert_eq!(clock.state_now(&names("/px"), Position(1_500)), PurgeState::Soft);
        assert_eq!(clock.trim(Position(2_002)), 502);
        assert_eq!((clock.marks_count(), clock.latest()), (0, Position(2_002)));
    }

    #[test]
    fn full_prefix_lists_become_coarser() {
        let mut table = Table::default();
        let prefix = |authority: u64, text: String| Matcher::Prefix { authority, path_prefix: text.into() };
        let this = names("/p7/x");
        for n in 1..=PREFIXES_MAX as u64 + 1 {
            table.apply(&prefix(this.authority, format!("/p{n}/")), Position(n), PurgeMode::Hard);
        }
        assert_eq!(table.state(&this, Position(6)), PurgeState::Hard);
        for n in 0..PREFIX_AUTHORITIES_MAX as u64 {
            table.apply(&prefix(n, "/".into()), Position(1000 + n), PurgeMode::Hard);
        }
        assert!(table.prefixes.len() <= PREFIX_AUTHORITIES_MAX);
        assert_eq!(table.state(&this, Position(6)), PurgeState::Hard);
    }
}
