//! Framings of a service's sessions: a session keeps the one that it began with.
//!
//! A service offers endpoints with different framings, and a reload changes them. So each session
//! holds the number of its framing, one byte, and the service holds the list. A number is used
//! again once no session has it and no endpoint offers it.
//!
//! The list is a record, as sessions' records hold the numbers. A list that is nothing but the
//! first framing of the serving build needs none: an older process wrote no such record, and its
//! sessions have number 0.
//!
//! *Invariant*: a number that a session has names the framing that cut its input, as long as the
//! session lives. Only the longest message follows the build that serves. A library's own framing
//! is its code, so it is swapped with that: all versions of it have one number.

use super::offer::EndpointOffer;
use crate::framing::Framing;

/// Framing, and the number of sessions that have it.
#[derive(Debug)]
struct Counted {
    /// Framing, with the longest message that the serving build takes.
    framing: Framing,
    /// Sessions that have it.
    sessions: usize,
    /// Whether an endpoint of the serving build has it.
    offered: bool,
}

/// Framings of one service, by number. At least one. Calls are O(framings) unless they say
/// otherwise; there are few.
#[derive(Debug)]
pub(crate) struct Framings {
    /// Framings, each at the place of its number.
    all: Vec<Counted>,
    /// Whether the list has changed since it was recorded.
    changed: bool,
}

impl Framings {
    /// Framings of a service that a build begins to serve, or of one without a build.
    pub(crate) fn new(endpoints: &[EndpointOffer]) -> Framings {
        let mut framings = Framings { all: Vec::new(), changed: false };
        framings.follow(endpoints);
        // The first one has number 0 without a record.
        framings.changed = framings.all.len() > 1;
        framings
    }

    /// Framing of a number. O(1). A number that is none, which only damage can leave, has the
    /// first one.
    #[inline]
    pub(crate) fn get(&self, number: u8) -> &Framing {
        &self.all.get(usize::from(number)).unwrap_or(&self.all[0]).framing
    }

    /// Whether an endpoint of the serving build has the framing of a number. O(1).
    pub(crate) fn is_offered(&self, number: u8) -> bool {
        self.all.get(usize::from(number)).is_some_and(|f| f.offered)
    }

    /// Whether there is a framing of this number.
    pub(crate) fn has(&self, number: u8) -> bool {
        usize::from(number) < self.all.len()
    }

    /// Number of a framing, which is added if it is new. `None`: all 256 numbers are in use.
    pub(crate) fn number(&mut self, framing: &Framing) -> Option<u8> {
        if let Some(at) = self.all.iter().position(|f| f.framing.shares_state_with(framing)) {
            return Some(at as u8);
        }
        let new = Counted { framing: *framing, sessions: 0, offered: false };
        let free = self.all.iter().position(|f| f.sessions == 0 && !f.offered);
        // A lone framing that nobody has is the first one, which needs no record.
        match free.filter(|at| *at > 0 || self.all.len() > 1) {
            Some(at) => self.all[at] = new,
            None if self.all.len() > usize::from(u8::MAX) => return None,
            None => self.all.push(new),
        }
        self.changed = true;
        Some(self.all.iter().position(|f| f.framing == *framing)? as u8)
    }

    /// Follows the endpoints of a build that takes charge. Sessions keep their framings; the
    /// longest message is the new build's.
    pub(crate) fn follow(&mut self, endpoints: &[EndpointOffer]) {
        // Sessions of an unserved service come from a predecessor that recorded no list. The first
        // build to be adopted is the one that it ran.
        if self.all.first().is_none_or(|f| f.framing == Framing::UNSERVED)
            && let Some(first) = endpoints.first()
        {
            let sessions = self.all.first().map_or(0, |f| f.sessions);
            self.all.truncate(0);
            self.all.push(Counted { framing: first.framing, sessions, offered: true });
        }
        self.all.iter_mut().for_each(|f| f.offered = false);
        for endpoint in endpoints {
            // Offers are judged before: an endpoint too many is refused there.
            let Some(number) = self.number(&endpoint.framing) else { continue };
            let f = &mut self.all[usize::from(number)];
            (f.framing, f.offered) = (endpoint.framing, true);
        }
        let Some(bytes_max) = endpoints.first().map(|e| e.framing.bytes_max()) else { return };
        for f in &mut self.all {
            f.framing = f.framing.with_bytes_max(bytes_max);
        }
    }

    /// Counts a session that begins with a framing. O(1).
    pub(crate) fn enter(&mut self, number: u8) {
        if let Some(f) = self.all.get_mut(usize::from(number)) {
            f.sessions += 1;
        }
    }

    /// Counts a session that has ended. O(1).
    pub(crate) fn leave(&mut self, number: u8) {
        if let Some(f) = self.all.get_mut(usize::from(number)) {
            f.sessions -= 1;
        }
    }

    /// Framings that sessions have.
    pub(crate) fn in_use(&self) -> impl Iterator<Item = Framing> {
        self.all.iter().filter(|f| f.sessions > 0).map(|f| f.framing)
    }

    /// Takes the record to write, if the list has changed. Each framing by number: its number in
    /// [`greenroom_state::abi::framing`] and its longest message (u32 each, little-endian), the
    /// length of its parameters (one byte), and the parameters.
    pub(crate) fn take_changed(&mut self) -> Option<Vec<u8>> {
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        let mut record = Vec::new();
        for Counted { framing, .. } in &self.all {
            let (number, parameters) = framing.as_offered();
            record.extend(number.to_le_bytes());
            record.extend(framing.bytes_max().to_le_bytes());
            record.push(parameters.len() as u8);
            record.extend(parameters);
        }
        Some(record)
    }

    /// Takes over the list that a predecessor has recorded, before its sessions are counted. False:
    /// the record cannot be read.
    pub(crate) fn recover(&mut self, record: &[u8]) -> bool {
        let Some(all) = decode(record).filter(|all| (1..=256).contains(&all.len())) else { return false };
        let counted = |framing| Counted { framing, sessions: 0, offered: false };
        self.all = all.into_iter().map(counted).collect();
        true
    }
}

/// Reads a record that [`Framings::take_changed`] made. `None`: it is none, or has a framing that
/// this build does not know.
fn decode(mut record: &[u8]) -> Option<Vec<Framing>> {
    let mut all = Vec::new();
    while !record.is_empty() {
        let (number, rest) = record.split_first_chunk()?;
        let (bytes_max, rest) = rest.split_first_chunk()?;
        let (len, rest) = rest.split_first()?;
        let (parameters, rest) = rest.split_at_checked(usize::from(*len))?;
        let (number, bytes_max) = (u32::from_le_bytes(*number), u32::from_le_bytes(*bytes_max));
        all.push(Framing::offered(number, bytes_max, parameters).ok()?);
        record = rest;
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::framing::length_prefix::LengthPrefix;

    fn endpoint(framing: Framing) -> EndpointOffer {
        EndpointOffer { framing, port: 0 }
    }

    fn lines(bytes_max: u32) -> Framing {
        Framing::Lines { bytes_max }
    }

    #[test]
    fn a_number_keeps_its_framing_while_a_session_has_it() {
        let (raw, telnet) = (Framing::Raw { bytes_max: 9 }, Framing::Telnet { bytes_max: 9 });
        let mut f = Framings::new(&[endpoint(lines(9))]);
        assert_eq!((f.take_changed(), f.number(&lines(9)), f.number(&raw)), (None, Some(0), Some(1)));
        f.enter(0);
        f.enter(1);
        // Another build offers raw alone, and shorter messages.
        f.follow(&[endpoint(Framing::Raw { bytes_max: 5 })]);
        assert_eq!((f.get(0), f.get(1)), (&lines(5), &Framing::Raw { bytes_max: 5 }));
        assert_eq!(f.number(&telnet), Some(2), "a session has 0, and 1 is offered");
        f.leave(0);
        assert_eq!((f.number(&telnet), f.number(&lines(5))), (Some(2), Some(0)));
        let prefix = LengthPrefix::new(2, false).unwrap();
        assert_eq!(f.number(&Framing::LengthPrefix { prefix, bytes_max: 5 }), Some(0), "nobody has 0");
        assert_eq!(f.in_use().collect::<Vec<_>>(), [Framing::Raw { bytes_max: 5 }]);
    }

    #[test]
    fn a_successor_reads_the_list_and_an_older_one_has_none() {
        let mut f = Framings::new(&[endpoint(lines(9)), endpoint(Framing::Raw { bytes_max: 9 })]);
        let record = f.take_changed().unwrap();
        let mut successor = Framings::new(&[endpoint(Framing::UNSERVED)]);
        assert!(successor.recover(&record) && successor.has(1) && !successor.has(2));
        successor.enter(1);
        // The serving build is another one than the first session's.
        successor.follow(&[endpoint(Framing::Telnet { bytes_max: 7 })]);
        assert_eq!((successor.get(1), successor.get(0).kind()), (&Framing::Raw { bytes_max: 7 }, "telnet"));

        let mut old = Framings::new(&[endpoint(Framing::UNSERVED)]);
        old.enter(0);
        old.follow(&[endpoint(lines(9))]);
        assert_eq!((old.get(0), old.in_use().count()), (&lines(9), 1));
        assert_eq!(old.take_changed(), None);
        assert!(!old.recover(b"") && !old.recover(b"[]") && !old.recover(&record[1..]));
    }

    /// Framings of one number but with other parameters are others; a library's own is one.
    #[test]
    fn every_form_is_recorded_and_read_back() {
        let prefix = |width| LengthPrefix::new(width, true).unwrap();
        let base_128 = LengthPrefix::base_128(4).unwrap();
        let forms =
            [prefix(2), prefix(8), prefix(2).counting_itself(), base_128, base_128.behind(1).unwrap()];
        let mut all: Vec<_> =
            forms.into_iter().map(|prefix| Framing::LengthPrefix { prefix, bytes_max: 9 }).collect();
        all.extend([Framing::Telnet { bytes_max: 9 }, Framing::WebSocket { bytes_max: 9 }]);
        all.push(Framing::Custom { version: 3, bytes_max: 9 });
        let mut f = Framings::new(&all.iter().copied().map(endpoint).collect::<Vec<_>>());
        let mut successor = Framings::new(&[endpoint(Framing::UNSERVED)]);
        assert!(successor.recover(&f.take_changed().unwrap()));
        for (at, framing) in all.iter().enumerate() {
            assert_eq!((successor.get(at as u8), f.number(framing)), (framing, Some(at as u8)));
        }

        // The library's own is swapped with its code, and counts as offered by such a build alone.
        let (own, next) = (all.len() as u8 - 1, Framing::Custom { version: 4, bytes_max: 9 });
        f.enter(own);
        assert_eq!((f.number(&next), f.is_offered(own)), (Some(own), true));
        f.follow(&[endpoint(next)]);
        assert_eq!((f.get(own), f.is_offered(own), f.is_offered(0)), (&next, true, false));
        f.follow(&[endpoint(lines(9))]);
        assert_eq!((f.get(own), f.is_offered(own)), (&next, false));
    }

    #[test]
    fn at_most_256_are_in_use() {
        let framing = |n: usize| {
            let bytes = [b'x', (n / 16) as u8, (n % 16) as u8];
            let delimiter = crate::framing::delimiter::Delimiter::new(&bytes).unwrap();
            Framing::Delimiter { delimiter, bytes_max: 9 }
        };
        let mut f = Framings::new(&[endpoint(lines(9))]);
        f.enter(0);
        for n in 1..256 {
            assert_eq!(f.number(&framing(n)), Some(n as u8));
            f.enter(n as u8);
        }
        assert_eq!(f.number(&framing(256)), None);
        f.leave(7);
        assert_eq!(f.number(&framing(256)), Some(7));
    }
}
