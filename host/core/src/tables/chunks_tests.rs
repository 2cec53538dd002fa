//! Tests of chunks against a plain map.

use super::*;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Word(Box<[u8]>, u32);

impl Item for Word {
    type Key = [u8];
    type Owned = Box<[u8]>;
    fn key(&self) -> &[u8] {
        &self.0
    }
    fn owned(key: &[u8]) -> Box<[u8]> {
        key.into()
    }
    fn bytes(&self) -> usize {
        self.0.len() + self.1 as usize
    }
    fn head_of(key: &[u8]) -> u64 {
        crate::tables::indexed::Indexed::head_of(key)
    }
}

/// Totals of these items.
fn totals<'a>(items: impl Iterator<Item = &'a Word>) -> Totals {
    let mut all = Totals::default();
    items.for_each(|w| all.add(w.bytes(), w.1 % 3));
    all.versions.sort_unstable();
    all
}

fn sorted(mut totals: Totals) -> Totals {
    totals.versions.sort_unstable();
    totals
}

#[test]
fn chunks_hold_what_a_plain_map_holds() {
    let version_of = |w: &Word| w.1 % 3;
    // Some words have no deadline, and others one of their own.
    let marks =
        |w: &Word| Marks { version: w.1 % 3, until_ms: Some(u64::from(w.1)).filter(|ms| *ms % 4 != 0) };
    for seed in 0..40 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let (mut chunks, mut model) = (Chunks::<Word>::default(), BTreeMap::<Box<[u8]>, Word>::new());
        let long = rng.usize(1..4);
        let key = |rng: &mut fastrand::Rng| -> Box<[u8]> {
            (0..rng.usize(0..=long)).map(|_| rng.u8(b'a'..=b'h')).collect()
        };
        for step in 0..3000 {
            let (one, two) = (key(&mut rng), key(&mut rng));
            match rng.u8(0..20) {
                0 if step % 16 == 0 => {
                    let end = rng.bool().then_some(&*two);
                    let is_in = |k: &[u8]| *k >= *one && end.is_none_or(|end| k < end);
                    let gone: Vec<_> = model.extract_if(.., |k, _| is_in(k)).map(|(_, w)| w).collect();
                    let counted = chunks.count((&one, end), &version_of);
                    assert_eq!(sorted(counted), totals(gone.iter()), "seed {seed}");
                    let taken = chunks.take((&one, end), &version_of);
                    assert_eq!(sorted(taken.totals.clone()), totals(gone.iter()), "seed {seed}");
                    match rng.bool() {
                        true => {
                            let items = taken.into_chunks().flat_map(|chunk| chunk.items);
                            assert!(items.eq(gone), "seed {seed}");
                        }
                        false => {
                            let mut taken = taken;
                            let items = std::iter::from_fn(|| taken.pop());
                            assert!(items.eq(gone.into_iter().rev()), "seed {seed}");
                        }
                    }
                }
                1..6 => {
                    let removed = chunks.remove(&one, &version_of);
                    assert_eq!(removed, model.remove(&one), "seed {seed}");
                }
                _ => {
                    // Some come in order.
                    let one = if rng.bool() { one } else { step.to_string().into_bytes().into() };
                    let word = Word(one.clone(), rng.u32(0..9));
                    match model.insert(one.clone(), word.clone()) {
                        Some(old) => {
                            let changed = chunks.change(&one, |w| {
                                *w = word;
                                Ok::<_, ()>((version_of(&old), marks(w)))
                            });
                            assert_eq!(changed, Some(Ok(())));
                        }
                        None => {
                            let marks = marks(&word);
                            chunks.insert(word, marks, &version_of);
                        }
                    }
                }
            }
            assert_eq!(chunks.get(&two), model.get(&two), "seed {seed}");
            let before = model.range::<[u8], _>((Bound::Unbounded, Bound::Excluded(&*two))).next_back();
            assert_eq!(chunks.before(Some(&two)), before.map(|(_, w)| w), "seed {seed}");
            assert_eq!(chunks.from(&two).next(), chunks.first_from(&two), "seed {seed}");
            assert_eq!(
                chunks.first_from(&two),
                model.range(two.clone()..).next().map(|(_, w)| w),
                "seed {seed}"
            );
            // A walk at any time passes over words whose deadline is over.
            let clock_ms = rng.u64(0..9);
            let over = |w: &Word| marks(w).until_ms.filter(|ms| *ms <= clock_ms);
            let walk = Walk { clock_ms, over };
            let alive = model.range::<[u8], _>((Bound::Unbounded, Bound::Excluded(&*two)));
            let alive = alive.rev().map(|(_, w)| w).find(|w| over(w).is_none());
            assert_eq!(chunks.alive_before(Some(&two), &walk), alive, "seed {seed}");
            let alive = model.range::<[u8], _>((Bound::Included(&*two), Bound::Unbounded));
            let alive = alive.map(|(_, w)| w).filter(|w| over(w).is_none());
            assert!(chunks.alive_from(&two, walk).take(9).eq(alive.take(9)), "seed {seed}");
            if step % 64 == 0 {
                assert!(chunks.iter().eq(model.values()), "seed {seed}");
                assert!(chunks.from(b"").eq(model.values()), "seed {seed}");
                // The same range each time: what was measured before does not count.
                assert_eq!(sorted(chunks.count((b"", None), &version_of)), totals(model.values()));
                assert_eq!(sorted(chunks.totals().clone()), totals(model.values()), "seed {seed}");
                let again = Chunks::of_sorted(model.values().map(|w| (w.clone(), version_of(w))));
                assert!(again.iter().eq(model.values()) && again.before(None) == chunks.before(None));
            }
        }
    }
}
