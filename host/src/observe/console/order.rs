//! Order of the list of sessions: what a page searches for, and how it sorts.
//!
//! A search is words. Each must occur in number, service, endpoint, peer or reason of quarantine,
//! in any case of letters. A word such as `service:chat` looks at that field alone, and must be the
//! beginning of it.

use crate::observe::console::rows::Row;
use std::cmp::Ordering;

/// Longest search, in bytes. The rest is left out.
const SEARCH_BYTES_MAX: usize = 256;

/// Search and sort of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Order {
    /// Words in lower case, each with its field; an empty one: any.
    words: Vec<(String, String)>,
    by: SortBy,
    is_down: bool,
}

/// Column that is sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SortBy {
    Number,
    Service,
    Peer,
    Opened,
    Turns,
    Rate,
    BytesIn,
    BytesOut,
    Quarantined,
}

impl Order {
    /// Order of a request. A column that is not known is the number.
    pub(super) fn new(search: &str, column: &str, is_down: bool) -> Order {
        let end = (0..=search.len().min(SEARCH_BYTES_MAX)).rev().find(|at| search.is_char_boundary(*at));
        let words = search[..end.unwrap_or(0)].to_lowercase();
        let words = words.split_whitespace().map(|word| match word.split_once(':') {
            Some((field, text)) if FIELDS.contains(&field) => (field.to_owned(), text.to_owned()),
            _ => (String::new(), word.to_owned()),
        });
        let by = match column {
            "service" => SortBy::Service,
            "peer" => SortBy::Peer,
            "opened" => SortBy::Opened,
            "turns" => SortBy::Turns,
            "rate" => SortBy::Rate,
            "in" => SortBy::BytesIn,
            "out" => SortBy::BytesOut,
            "state" => SortBy::Quarantined,
            _ => SortBy::Number,
        };
        Order { words: words.collect(), by, is_down }
    }

    /// Places of the sessions that are found, in order. O(sessions × log sessions).
    pub(super) fn places(&self, rows: &[Row]) -> Vec<u32> {
        let found = rows.iter().enumerate().filter(|(_, row)| self.finds(row));
        let mut places: Vec<u32> = found.map(|(at, _)| at as u32).collect();
        if self.by != SortBy::Number {
            // Stable: sessions that are equal stay in the order of their numbers.
            places.sort_by(|a, b| {
                let order = self.compare(&rows[*a as usize], &rows[*b as usize]);
                if self.is_down { order.reverse() } else { order }
            });
        } else if self.is_down {
            places.reverse();
        }
        places
    }

    fn compare(&self, a: &Row, b: &Row) -> Ordering {
        match self.by {
            SortBy::Number => a.id.cmp(&b.id),
            SortBy::Service => a.service.cmp(&b.service),
            SortBy::Peer => a.peer.cmp(&b.peer),
            SortBy::Opened => a.opened_at.cmp(&b.opened_at),
            SortBy::Turns => a.turns.cmp(&b.turns),
            SortBy::Rate => a.rate.total_cmp(&b.rate),
            SortBy::BytesIn => a.bytes_in.cmp(&b.bytes_in),
            SortBy::BytesOut => a.bytes_out.cmp(&b.bytes_out),
            SortBy::Quarantined => b.quarantined.is_some().cmp(&a.quarantined.is_some()),
        }
    }

    fn finds(&self, row: &Row) -> bool {
        self.words.iter().all(|(field, word)| match field.as_str() {
            "id" => row.id.to_string() == *word,
            "service" => begins(&row.service, word),
            "peer" => begins(&row.peer, word),
            "endpoint" => begins(&row.endpoint, word),
            "is" => match word.as_str() {
                "quarantined" => row.quarantined.is_some(),
                "tls" => row.over_tls,
                "busy" => row.rate > 0.0,
                _ => false,
            },
            _ => {
                let texts = [&row.service, &row.endpoint].map(|text| &**text);
                texts.into_iter().chain([&*row.peer]).chain(row.quarantined.as_deref()).any(|t| has(t, word))
                    || row.id.to_string().contains(word.as_str())
            }
        })
    }
}

/// Fields that a word may name.
const FIELDS: [&str; 5] = ["id", "service", "peer", "endpoint", "is"];

/// Whether a text begins with a word that is in lower case.
fn begins(text: &str, word: &str) -> bool {
    text.to_lowercase().starts_with(word)
}

/// Whether a text has a word that is in lower case.
fn has(text: &str, word: &str) -> bool {
    match text.is_ascii() && word.is_ascii() {
        // Without a copy: most texts are of this kind.
        true if word.is_empty() => true,
        true => text.as_bytes().windows(word.len()).any(|w| w.eq_ignore_ascii_case(word.as_bytes())),
        false => text.to_lowercase().contains(word),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::console::rows::tests::session;

    fn ids(rows: &[Row], search: &str, column: &str, is_down: bool) -> Vec<u64> {
        let places = Order::new(search, column, is_down).places(rows);
        places.into_iter().map(|at| rows[at as usize].id).collect()
    }

    #[test]
    fn sessions_are_searched_and_sorted() {
        let rows = [session(7, "chat", 5), session(8, "Echo", 5), session(20, "chat", 900)];
        assert_eq!(ids(&rows, "", "id", false), [7, 8, 20]);
        assert_eq!(ids(&rows, "", "id", true), [20, 8, 7]);
        assert_eq!(ids(&rows, "", "turns", true), [20, 7, 8]);
        assert_eq!(ids(&rows, "", "service", false), [8, 7, 20]);
        assert_eq!(ids(&rows, "CHAT", "id", false), [7, 20]);
        assert_eq!(ids(&rows, "chat 10.0.0.20", "id", false), [20]);
        assert_eq!(ids(&rows, "service:ch is:quarantined", "id", false), [7]);
        assert_eq!(ids(&rows, "id:8", "id", false), [8]);
        assert_eq!(ids(&rows, "failed", "id", false), [7]);
        assert!(
            ids(&rows, "is:what", "id", false).is_empty() && ids(&rows, "service:x", "id", true).is_empty()
        );
        assert!(ids(&rows, &"é".repeat(1000), "id", false).is_empty());
    }

    /// All of 100,000 sessions are found in any order, once each.
    #[test]
    fn no_session_of_many_is_lost() {
        let rows: Vec<_> = (1..=100_000).map(|id| session(id, "tally", id * 7919 % 1000)).collect();
        for column in ["id", "service", "peer", "opened", "turns", "rate", "in", "out", "state"] {
            let mut found = ids(&rows, "tally", column, true);
            found.sort_unstable();
            assert!(found.iter().copied().eq(1..=100_000), "{column}");
        }
        assert_eq!(ids(&rows, "is:quarantined", "id", false).len(), 1000);
    }
}
