//! Terms of a canary: which sessions run the candidate, and what ends it.
//!
//! Membership is a pure function of the terms, the generation and the number of the session.

use crate::ids::service_of_number;
use serde::{Deserialize, Serialize};

/// Ten-thousandths in a whole.
pub const WHOLE: u32 = 10_000;
/// Sessions that may be chosen by their numbers, at most: they are part of a record.
pub const CHOSEN_MAX: usize = 10_000;

/// Terms of a canary: which sessions run the candidate, and what ends it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanaryTerms {
    /// Sessions with higher numbers opened later.
    pub above: u64,
    /// Share of later sessions that run the candidate, in ten-thousandths.
    pub share: u32,
    /// Sessions that run it by choice, sorted.
    pub chosen: Vec<u64>,
    /// Interval of the batches that the build that serves runs, too, to compare; 0: none.
    pub compare_every: u32,
    /// Time of the promotion, on the clock of [`crate::input::Input::PassBegins`]; `None`: by
    /// command.
    pub promote_at_ns: Option<u64>,
    /// Faults from which on it is taken back: more than these; `None`: by command.
    pub faults_max: Option<u64>,
}

impl CanaryTerms {
    /// Returns whether a session runs the candidate of this generation. O(log chosen).
    pub fn includes(&self, generation: u64, session: u64) -> bool {
        if service_of_number(session).is_some() {
            return false;
        }
        if self.chosen.binary_search(&session).is_ok() {
            return true;
        }
        session > self.above && mixed(session, generation) % u64::from(WHOLE) < u64::from(self.share)
    }
}

/// Number that looks random, and follows from two others. Numbers of sessions may follow a pattern
/// of their peers, and each canary is to draw other sessions.
fn mixed(session: u64, generation: u64) -> u64 {
    let mut x = session ^ generation.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The share is met, each canary draws others, and nobody is drawn twice differently.
    #[test]
    fn sessions_belong_to_one_build_by_their_numbers() {
        let terms = CanaryTerms { above: 100, share: 500, chosen: vec![3, 70], ..CanaryTerms::default() };
        let of = |generation: u64| (1..=20_100).filter(move |n| terms_of().includes(generation, *n));
        fn terms_of() -> CanaryTerms {
            CanaryTerms { above: 100, share: 500, chosen: vec![3, 70], ..CanaryTerms::default() }
        }
        let (two, three): (Vec<_>, Vec<_>) = (of(2).collect(), of(3).collect());
        assert_eq!((&two[..2], &three[..2]), (&[3, 70][..], &[3, 70][..]));
        assert!(two[2] > 100 && (900..1100).contains(&two.len()), "{}", two.len());
        assert!(two.iter().filter(|n| three.contains(n)).count() < 150);
        assert!(!terms.includes(2, crate::ids::ServiceId(3).number()));
        let none = CanaryTerms { share: 0, ..terms.clone() };
        assert_eq!((1..1000).filter(|n| none.includes(2, *n)).count(), 2);
        let all = CanaryTerms { share: WHOLE, chosen: Vec::new(), ..terms };
        assert_eq!((1..1000).filter(|n| all.includes(2, *n)).count(), 899);
    }
}
