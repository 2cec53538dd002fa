//! Tests of tables against a plain map, and of the index built again after a crash.

use super::*;
use crate::store::kind::Kind;
use crate::store::snapshot::{Seen, each_at};

/// Puts, replaces and deletes entries. The last deletion leaves neither table nor record.
#[test]
fn entries_come_and_go() {
    let (mut t, mut s) = (Tables::default(), Store::new(1 << 20));
    t.put(&mut s, "nicks", b"bob", 0, b"1").unwrap();
    t.put(&mut s, "nicks", b"ann", 0, b"22").unwrap();
    t.put(&mut s, "nicks", b"bob", 2, b"333").unwrap();
    let mut out = Vec::new();
    assert_eq!(t.get(&s, "nicks", b"bob", &mut out), Some(2));
    assert_eq!(t.get(&s, "nicks", b"eve", &mut out), None);
    assert_eq!((&out[..], t.versions("nicks"), t.count("nicks")), (&b"333"[..], vec![1, 2], 2));
    assert_eq!(t.keys_from(&s, "nicks", b"").collect::<Vec<_>>(), [b"ann", b"bob"]);
    assert_eq!(t.versions("nicks"), [1, 2]);
    assert_eq!(t.keys_from(&s, "nicks", b"ann\0").collect::<Vec<_>>(), [b"bob"]);
    t.delete(&mut s, "nicks", b"ann");
    t.delete(&mut s, "nicks", b"bob");
    t.delete(&mut s, "nicks", b"bob");
    assert!(t.is_empty() && s.bytes() == 0);
}

/// Index built again from the memory of a store, as a successor does, with the store.
fn recovered(s: &Store) -> (Tables, Store) {
    let image = crate::store::memory::Plain::from(s.image().to_vec());
    let found = Store::recover(Box::new(image), 1 << 24).unwrap();
    let mut again = Tables::default();
    let entries = found.records.iter().filter(|f| matches!(f.kind, Kind::Entry | Kind::Expiring));
    let of_kind = |kind| found.records.iter().filter(move |f| f.kind == kind);
    assert_eq!(again.recover(&found.store, of_kind(Kind::Drop), entries), []);
    (again, found.store)
}

/// Keys begin alike, are the beginning of others, or differ far behind. Recovery puts them in
/// the order that they had, with the same counts and values.
#[test]
fn the_index_is_what_it_was_when_it_is_built_again() {
    for seed in 0..60 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let (mut t, mut s) = (Tables::default(), Store::new(1 << 24));
        let prefix = vec![b'p'; rng.usize(0..40)];
        for _ in 0..rng.usize(0..400) {
            let table = ["one", "two"][rng.usize(0..2)];
            let rest = (0..rng.usize(0..40)).map(|_| *rng.choice(b"\0\0\0a\xff").expect("one"));
            let key: Vec<_> = prefix.iter().copied().chain(rest).collect();
            match rng.u8(0..5) {
                0 if rng.u8(0..8) == 0 => t.drop_prefix(&mut s, table, &key[..key.len() / 2]),
                0 => t.delete(&mut s, table, &key),
                _ => {
                    let (version, until) = (rng.u32(0..3), rng.bool().then(|| rng.u64(1..99)));
                    t.put_until(&mut s, (table, &key), version, &vec![1; rng.usize(0..90)], until).unwrap();
                }
            }
        }
        s.commit();
        let (again, store) = recovered(&s);
        assert_eq!(again.names().collect::<Vec<_>>(), t.names().collect::<Vec<_>>());
        for name in t.names() {
            let keys: Vec<_> = t.keys_from(&s, name, b"").collect();
            assert_eq!(again.keys_from(&store, name, b"").collect::<Vec<_>>(), keys, "seed {seed}");
            assert_eq!((again.bytes(name), again.versions(name)), (t.bytes(name), t.versions(name)));
            for key in keys {
                let (mut was, mut is) = (Vec::new(), Vec::new());
                let versions = (t.get(&s, name, key, &mut was), again.get(&store, name, key, &mut is));
                assert!(versions.0 == versions.1 && was == is, "seed {seed}");
                assert_eq!(again.until(&store, name, key), t.until(&s, name, key), "seed {seed}");
            }
        }
    }
}

/// Entries that a snapshot shows, but for those that were dropped.
fn shown(s: &Store, epoch: u64, dropped: &DroppedPrefixes) -> usize {
    let (image, mut count) = (s.image(), 0);
    let read = |at: usize, into: &mut [u8]| {
        into.copy_from_slice(&image[at..at + into.len()]);
        Ok(())
    };
    let each = |seen: &Seen<'_>| {
        let is_entry = matches!(seen.kind, Kind::Entry | Kind::Expiring);
        count += usize::from(is_entry && !dropped.has(seen));
        Ok(())
    };
    each_at(image.len(), epoch, 1 << 24, read, each).expect("a store");
    count
}

/// Deletes what is over, as passes do, up to a number. Returns how much that is.
fn expire(t: &mut Tables, s: &mut Store, most: usize) -> usize {
    let mut left = most;
    for table in t.tables_over() {
        while left > 0
            && let Some(over) = t.next_over(s, &table)
        {
            if let OverEntry::Key(key) = over {
                t.delete(s, &table, &key);
                left -= 1;
            }
        }
    }
    t.look_for_deadlines();
    most - left
}

/// Entries by table and key: value and deadline.
type Model = BTreeMap<(&'static str, Vec<u8>), (u8, Option<u64>)>;

/// Bytes that the deadlines of a table's entries count.
fn of_table_deadlines(model: &Model, table: &str) -> usize {
    model.iter().filter(|((t, _), (_, until))| *t == table && until.is_some()).count() * 8
}

/// Drops, writes, deadlines, shares of deletion and deaths in any order. What was dropped or is
/// over never comes back, and what was written since stays. In the end no record of it is left.
#[test]
fn dropped_entries_never_come_back() {
    for seed in 0..60 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let (mut t, mut s) = (Tables::default(), Store::new(1 << 24));
        let mut model = Model::new();
        let mut wall = 1;
        for n in 0..rng.usize(0..600) {
            let table = ["one", "two"][rng.usize(0..2)];
            let key: Vec<u8> = (0..rng.usize(0..4)).map(|_| b"\0ab\xff"[rng.usize(0..4)]).collect();
            match rng.u8(0..40) {
                0..3 => {
                    let prefix = &key[..key.len().min(rng.usize(0..3))];
                    t.drop_prefix(&mut s, table, prefix);
                    model.retain(|(t, k), _| !(*t == table && k.starts_with(prefix)));
                }
                3..5 => {
                    // Another process does not know of a reading that was taken back.
                    expire(&mut t, &mut s, usize::MAX);
                    s.commit();
                    (t, s) = recovered(&s);
                    t.tick(wall);
                }
                20..23 => {
                    // Now and then the clock is set back, between the deadlines of what is over.
                    wall = if rng.u8(0..4) == 0 { wall / 2 + 1 } else { wall + rng.u64(0..30) };
                    t.tick(wall);
                    model.retain(|_, (_, until)| until.is_none_or(|ms| ms > wall));
                }
                23..26 => _ = expire(&mut t, &mut s, rng.usize(0..5)),
                39 if t.tables_over().is_empty() => {
                    // A reader of the last commit passes over what was dropped before it.
                    s.commit();
                    t.commit();
                    let epoch = s.pin(1 << 24);
                    for _ in 0..rng.usize(0..20) {
                        t.reclaim(&mut s);
                    }
                    assert_eq!(shown(&s, epoch, &t.dropped()), model.len(), "seed {seed}");
                    s.unpin(epoch);
                }
                5..20 => _ = (0..rng.usize(0..9)).take_while(|_| t.reclaim(&mut s)).count(),
                26..29 => {
                    t.delete(&mut s, table, &key);
                    model.remove(&(table, key));
                }
                _ => {
                    let until = rng.bool().then(|| wall + rng.u64(1..100));
                    t.put_until(&mut s, (table, &key), n as u32 % 3, &[n as u8], until).unwrap();
                    model.insert((table, key), (n as u8, until));
                }
            }
            let stored = t.names().flat_map(|name| t.keys_from(&s, name, b"").map(move |key| (name, key)));
            let all: Vec<_> =
                stored.map(|(name, key)| (name, key, t.value(&s, name, key).unwrap().1)).collect();
            let expected = model.iter().map(|((name, key), (v, _))| (*name, &**key, std::slice::from_ref(v)));
            assert!(all.into_iter().eq(expected), "seed {seed}");
            for name in ["one", "two"].into_iter().filter(|_| t.tables_over().is_empty()) {
                let of_table = model.iter().filter(|((t, _), _)| *t == name);
                let bytes = of_table.map(|((_, key), _)| key.len() + 1).sum::<usize>();
                let bytes = bytes + of_table_deadlines(&model, name);
                assert_eq!(t.bytes(name), bytes, "seed {seed}");
            }
        }
        while t.reclaim(&mut s) {}
        expire(&mut t, &mut s, usize::MAX);
        let records = s.count(Kind::Entry) + s.count(Kind::Expiring);
        assert_eq!((records, s.count(Kind::Drop)), (model.len(), 0), "seed {seed}");
        t.drop_prefix(&mut s, "one", b"");
        t.drop_prefix(&mut s, "two", b"");
        while t.reclaim(&mut s) {}
        assert_eq!((s.bytes(), t.next_in_ms()), (0, None), "seed {seed}: no deadline without its entry");
    }
}

#[test]
fn what_is_over_stays_over_when_the_clock_is_set_back() {
    let (mut t, mut s) = (Tables::default(), Store::new(1 << 20));
    t.tick(100);
    for (key, until) in [(&b"a"[..], 110), (b"b", 120), (b"c", 500)] {
        t.put_until(&mut s, ("t", key), 0, b"1", Some(until)).unwrap();
    }
    assert_eq!(t.next_in_ms(), Some(10));
    t.tick(130);
    let seen = |t: &Tables, s: &Store| t.keys_from(s, "t", b"").map(<[u8]>::to_vec).collect::<Vec<_>>();
    assert_eq!((seen(&t, &s), t.value(&s, "t", b"a")), (vec![b"c".to_vec()], None));
    // One is deleted, and the clock is set back before the other.
    assert_eq!(expire(&mut t, &mut s, 1), 1);
    t.tick(50);
    assert_eq!((seen(&t, &s), t.previous_key(&s, "t", b"", Some(b"c"))), (vec![b"c".to_vec()], None));
    // A write is judged by the clock as it is, also one in the place of what is over.
    for (key, until) in [(&b"d"[..], 60), (b"e", 115)] {
        t.put_until(&mut s, ("t", key), 0, b"1", Some(until)).unwrap();
    }
    assert_eq!(seen(&t, &s), [b"c", b"d", b"e"]);
    t.put_until(&mut s, ("t", b"b"), 0, b"1", Some(120)).unwrap();
    t.tick(55);
    assert_eq!(
        (seen(&t, &s), expire(&mut t, &mut s, 9)),
        ([b"b", b"c", b"d", b"e"].map(Vec::from).into(), 0)
    );
    assert_eq!(t.next_in_ms(), Some(5));
}

/// A walk over entries that are over looks at each once, and at no chunk's items
/// again.
#[test]
fn a_walk_passes_over_what_is_over() {
    let (mut t, mut s) = (Tables::default(), Store::new(1 << 26));
    for n in 0..20_000u32 {
        let until = Some(10 + u64::from(n % 7));
        t.put_until(&mut s, ("t", &n.to_be_bytes()), 0, b"1", until).unwrap();
    }
    t.tick(30);
    let looked = std::cell::Cell::new(0);
    let over = |e: &Indexed| {
        looked.set(looked.get() + 1);
        until_of(&s, e.at)
    };
    let chunks = &t.tables["t"];
    assert_eq!(chunks.alive_from(b"", Walk { clock_ms: 30, over }).count(), 0);
    assert_eq!((looked.get(), chunks.alive_before(None, &Walk { clock_ms: 30, over }).is_some()), (0, false));
    // After a recovery the first walk looks at each entry, and the next one at none.
    s.commit();
    let (t, s) = recovered(&s);
    let over = |e: &Indexed| {
        looked.set(looked.get() + 1);
        until_of(&s, e.at)
    };
    let chunks = &t.tables["t"];
    for _ in 0..2 {
        assert_eq!(chunks.alive_from(b"", Walk { clock_ms: 30, over }).count(), 0);
        assert_eq!(
            (looked.get(), chunks.alive_before(None, &Walk { clock_ms: 30, over }).is_some()),
            (20_000, false)
        );
    }
}
