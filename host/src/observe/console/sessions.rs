//! List of the sessions, as pages see it: sorted, searched, and sent in slices.
//!
//! The observer reads the whole list from the host, and only while a page asks for it. The time
//! that this takes decides how often it is done: at most 1/20 of the time is spent on it. The order
//! of a search is kept, so a page that scrolls costs a slice each.

use crate::observe::console::order::Order;
use crate::observe::console::rows::{Row, Rows, note_rates, row};
use crate::observe::questions::{Questions, locked, try_locked};
use crate::protocol::admin::{AdminCommand, Reply};
use serde::Serialize;
use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Shortest time between two reads of the list.
const REFRESH_MIN: Duration = Duration::from_secs(1);
/// Longest time between two reads, however long one takes.
const REFRESH_MAX: Duration = Duration::from_secs(60);
/// Time between two reads, in times of one.
const REFRESH_TIMES: u32 = 20;
/// Time after which a list that no page asks for is dropped.
const KEPT_MAX: Duration = Duration::from_secs(60);
/// Most sessions of a slice.
const SLICE_MAX: usize = 500;
/// Orders that are kept.
const ORDERS_MAX: usize = 4;

/// Sessions of one read.
pub(super) struct Listed {
    /// Number of the read.
    pub(super) version: u64,
    at: Instant,
    pub(super) rows: Rows,
}

/// Slice of the list, for a page.
#[derive(Serialize)]
pub(super) struct SessionSlice {
    version: u64,
    /// Sessions that the search found.
    total: usize,
    /// Sessions in all.
    all: usize,
    /// Place of the first session of the slice.
    from: usize,
    /// Age of the list, in milliseconds.
    age_ms: u64,
    sessions: Vec<Row>,
}

/// The list, and the orders in which pages see it.
#[derive(Default)]
pub(super) struct SessionList {
    state: Mutex<ListState>,
    /// Held while the list is read.
    reads: Mutex<()>,
}

#[derive(Default)]
struct ListState {
    list: Option<Arc<Listed>>,
    /// Number of the last read.
    version: u64,
    /// Time that the last read took.
    took: Duration,
    /// Time at which a page asked last.
    asked_at: Option<Instant>,
    /// Orders of the present list, the newest first.
    orders: VecDeque<(Order, Arc<[u32]>)>,
}

impl SessionList {
    /// A slice of the list, in this order. Reads the list if there is none, or if it is old.
    pub(super) fn slice(
        &self,
        questions: &Questions,
        order: Order,
        from: usize,
        count: usize,
    ) -> Result<SessionSlice, String> {
        let list = self.fresh(questions)?;
        let kept = locked(&self.state).order(&list, &order);
        let places = kept.unwrap_or_else(|| {
            let places: Arc<[u32]> = order.places(&list.rows).into();
            locked(&self.state).keep(&list, order, places.clone());
            places
        });
        let shown = places.iter().skip(from).take(count.min(SLICE_MAX));
        Ok(SessionSlice {
            version: list.version,
            total: places.len(),
            all: list.rows.len(),
            from,
            age_ms: list.at.elapsed().as_millis() as u64,
            sessions: shown.map(|&at| list.rows[at as usize].clone()).collect(),
        })
    }

    /// A session of the list; `None`: the list does not have it.
    pub(super) fn row(&self, id: u64) -> Option<Row> {
        let list = locked(&self.state).list.clone()?;
        let at = list.rows.binary_search_by_key(&id, |row| row.id).ok()?;
        Some(list.rows[at].clone())
    }

    /// Number of the last read; 0: there was none.
    pub(super) fn version(&self) -> u64 {
        locked(&self.state).version
    }

    /// Drops a list that no page asks for.
    pub(super) fn drop_unused(&self) {
        let mut state = locked(&self.state);
        if state.asked_at.is_some_and(|at| at.elapsed() >= KEPT_MAX) {
            (state.list, state.asked_at) = (None, None);
            state.orders.clear();
        }
    }

    /// The list, read anew if it is due. One request reads, and the others go on with the old one.
    fn fresh(&self, questions: &Questions) -> Result<Arc<Listed>, String> {
        let (list, is_due) = locked(&self.state).ask();
        let _reads = match (list, is_due) {
            (Some(list), false) => return Ok(list),
            (Some(list), true) => match try_locked(&self.reads) {
                Some(reads) => reads,
                None => return Ok(list),
            },
            (None, _) => try_locked(&self.reads).ok_or("the list is being read")?,
        };
        let (begun, before) = (Instant::now(), locked(&self.state).list.clone());
        let rows = questions.in_a_place(|| read(questions, before.as_deref()))?;
        Ok(locked(&self.state).put(rows, begun.elapsed()))
    }
}

impl ListState {
    /// Notes that a page asks. Returns the list, and whether it is to be read anew.
    fn ask(&mut self) -> (Option<Arc<Listed>>, bool) {
        self.asked_at = Some(Instant::now());
        let pause = (self.took * REFRESH_TIMES).clamp(REFRESH_MIN, REFRESH_MAX);
        let is_due = self.list.as_ref().is_none_or(|list| list.at.elapsed() >= pause);
        (self.list.clone(), is_due)
    }

    /// Takes a list that was read in this time.
    fn put(&mut self, rows: Rows, took: Duration) -> Arc<Listed> {
        self.version += 1;
        let list = Arc::new(Listed { version: self.version, at: Instant::now(), rows });
        (self.list, self.took) = (Some(list.clone()), took);
        self.orders.clear();
        list
    }

    /// Places of the sessions of a list in this order, if they are kept.
    fn order(&self, list: &Listed, order: &Order) -> Option<Arc<[u32]>> {
        let kept = self.orders.iter().find(|(o, _)| o == order && list.version == self.version);
        kept.map(|(_, places)| places.clone())
    }

    /// Keeps an order, if it is that of the present list.
    fn keep(&mut self, list: &Listed, order: Order, places: Arc<[u32]>) {
        if list.version == self.version {
            self.orders.push_front((order, places));
            self.orders.truncate(ORDERS_MAX);
        }
    }
}

/// Reads all sessions of the host, in the order of their numbers. `before`: the list before, for
/// the rates.
fn read(questions: &Questions, before: Option<&Listed>) -> Result<Rows, String> {
    let (mut rows, mut texts) = (Rows::new(), BTreeSet::new());
    questions.call(&AdminCommand::Sessions { of: Box::default(), first: None }, |reply| {
        if let Reply::Sessions(lines) = reply {
            rows.extend(lines.into_iter().map(|line| row(line, &mut texts)));
        }
    })?;
    if let Some(before) = before {
        note_rates(&mut rows, &before.rows, before.at.elapsed().as_secs_f32());
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::console::rows::tests::session;

    /// A list is read anew after a time in proportion to what that costs, and an order is that of
    /// its list alone.
    #[test]
    fn a_list_is_kept_for_a_while() {
        let mut state = ListState::default();
        assert!(state.ask().1);
        let first = state.put(vec![session(1, "a", 0)], Duration::from_secs(1));
        assert!(!state.ask().1, "it took a second, so it is kept for 20");
        let order = Order::new("", "turns", true);
        state.keep(&first, order.clone(), [0].into());
        assert!(state.order(&first, &order).is_some());
        assert!(state.order(&first, &Order::new("x", "turns", true)).is_none());
        state.put(Vec::new(), Duration::ZERO);
        assert!(state.order(&first, &order).is_none());
        state.keep(&first, order.clone(), [0].into());
        assert!(state.orders.is_empty(), "a late order of an old list");
    }
}
