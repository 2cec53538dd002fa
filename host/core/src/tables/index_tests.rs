//! Tests of tables against a plain map, and of the index built again after a crash.

use super::*;

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
    assert_eq!(t.keys_from("nicks", b"").collect::<Vec<_>>(), [b"ann", b"bob"]);
    assert_eq!(t.versions("nicks"), [1, 2]);
    assert_eq!(t.keys_from("nicks", b"ann\0").collect::<Vec<_>>(), [b"bob"]);
    t.delete(&mut s, "nicks", b"ann");
    t.delete(&mut s, "nicks", b"bob");
    t.delete(&mut s, "nicks", b"bob");
    assert!(t.is_empty() && s.bytes() == 0);
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
                0 => t.delete(&mut s, table, &key),
                _ => t.put(&mut s, table, &key, rng.u32(0..3), &vec![1; rng.usize(0..90)]).unwrap(),
            }
        }
        s.commit();
        let image = crate::store::memory::Plain::from(s.image().to_vec());
        let found = Store::recover(Box::new(image), 1 << 24).unwrap();
        let mut again = Tables::default();
        assert_eq!(again.recover(&found.store, found.records.iter()), []);
        assert_eq!(again.names().collect::<Vec<_>>(), t.names().collect::<Vec<_>>());
        for name in t.names() {
            let keys: Vec<_> = t.keys_from(name, b"").collect();
            assert_eq!(again.keys_from(name, b"").collect::<Vec<_>>(), keys, "seed {seed}");
            assert_eq!((again.bytes(name), again.versions(name)), (t.bytes(name), t.versions(name)));
            for key in keys {
                let (mut was, mut is) = (Vec::new(), Vec::new());
                let versions = (t.get(&s, name, key, &mut was), again.get(&found.store, name, key, &mut is));
                assert!(versions.0 == versions.1 && was == is, "seed {seed}");
            }
        }
    }
}
