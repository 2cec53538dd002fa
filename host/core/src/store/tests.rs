//! Tests of the store against a plain map: random passes, cut at every word, cut again during
//! recovery, damaged at random.
//!
//! Every pass changes the store and the map alike. The map is then compared with the records
//! that recovery finds in a copy of the memory.

use super::block::{self, HEADER, Header, REST_AT};
use super::kind::Kind;
use super::layout::*;
use super::memory::{Memory, Plain};
use super::records::Store;
use super::recover::{Erased, Found, Recovered};
use super::snapshot::copy_at;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// Memory that the test can look into after the store is gone: the bytes that a successor would
/// map. The second field is the writer's view, without the cut.
#[derive(Clone)]
struct Shared(Arc<Mutex<Plain>>, Vec<u8>);

impl Shared {
    fn new(plain: Plain) -> Shared {
        let bytes = plain.bytes().to_vec();
        Shared(Arc::new(Mutex::new(plain)), bytes)
    }

    fn image(&self) -> Vec<u8> {
        self.0.lock().unwrap().bytes().to_vec()
    }
}

/// Memory of a writer that is about to be killed: the writer sees all that it wrote, also the
/// words that are cut off.
impl Memory for Shared {
    fn bytes(&self) -> &[u8] {
        &self.1
    }
    fn write(&mut self, at: usize, bytes: &[u8]) {
        self.0.lock().unwrap().write(at, bytes);
        self.1[at..at + bytes.len()].copy_from_slice(bytes);
    }
    fn mark(&mut self) {}
    fn commit(&mut self, at: usize, word: u64) {
        self.write(at, &word.to_le_bytes());
    }
    fn grow(&mut self, len: usize) -> bool {
        self.1.resize(self.1.len().max(len), 0);
        self.0.lock().unwrap().grow(len)
    }
}

/// Limit in bytes. Small, so that slabs change their class all the time.
const LIMIT: usize = 1 << 20;

/// Payloads by key.
type Model = BTreeMap<u64, Vec<u8>>;

/// Copies the records of a store by key. Fails if two have the same key.
fn contents(store: &Store, records: &[Found]) -> Model {
    let mut model = Model::new();
    for f in records {
        let old = model.insert(f.key, store.read(f.at, <[u8]>::to_vec));
        assert!(old.is_none(), "two records under key {}", f.key);
    }
    model
}

/// Runs one pass of random changes, without its commit. The model follows. Lengths are on both
/// sides of each way a class is chosen: within a unit, a whole unit, several units.
fn pass(rng: &mut fastrand::Rng, store: &mut Store, refs: &mut BTreeMap<u64, Ref>, model: &mut Model) {
    for _ in 0..rng.usize(1..12) {
        let key = rng.u64(0..20);
        let bytes = vec![rng.u8(..); *rng.choice(&[0, 8, 40, 128, 200, 600, 5000, 20_000, 70_000]).unwrap()];
        match (rng.u8(0..10), refs.get(&key).copied()) {
            (0..2, Some(r)) => {
                store.delete(r);
                refs.remove(&key);
                model.remove(&key);
            }
            (2..4, Some(r)) => {
                if bytes.len() < 1000 && store.append(r, &bytes) {
                    model.get_mut(&key).unwrap().extend(&bytes);
                }
            }
            // The store is full for this length, so the record stays as it was.
            _ if !store.reserve([bytes.len()]) => {}
            (_, old) => {
                refs.insert(key, store.put(old, Kind::State, key, &bytes).unwrap());
                model.insert(key, bytes);
            }
        }
    }
}

/// Reads see the changes of the pass. Recovery finds the same, and nothing is left behind.
#[test]
fn a_store_is_a_map() {
    for seed in 0..20 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let shared = Shared::new(Plain::default());
        let mut store = Store::create(Box::new(shared.clone()), LIMIT).unwrap();
        let (mut refs, mut model) = (BTreeMap::new(), Model::new());
        for _ in 0..200 {
            pass(&mut rng, &mut store, &mut refs, &mut model);
            for (key, r) in &refs {
                store.read(*r, |b| assert_eq!(b, model[key]));
            }
            assert_eq!(store.count(Kind::State), model.len());
            store.commit();
        }
        let recovered = Store::recover(Box::new(Plain::cut_after(&shared.image(), None)), LIMIT).unwrap();
        assert_eq!(contents(&recovered.store, &recovered.records), model);
        assert_eq!((recovered.store.bytes(), recovered.erased.len()), (store.bytes(), 0));
        for r in refs.into_values() {
            store.delete(r);
        }
        assert_eq!(store.bytes(), 0);
    }
}

/// Kills a pass at each of its first words and at many later ones, then five recoveries after 0
/// to 100 words. The records are those before the pass or, if the word of the commit was
/// written, those after it.
#[test]
fn a_kill_at_any_word_leaves_the_last_commit() {
    for seed in 0..12 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let shared = Shared::new(Plain::default());
        let mut store = Store::create(Box::new(shared.clone()), LIMIT).unwrap();
        let (mut refs, mut model) = (BTreeMap::new(), Model::new());
        for _ in 0..8 {
            pass(&mut rng, &mut store, &mut refs, &mut model);
            store.commit();
        }
        drop(store);
        let (before, image, seed_of_pass) = (model.clone(), shared.image(), rng.u64(..));
        let (mut cut, mut step) = (0, 1);
        loop {
            // The same pass again and again, killed ever later.
            let dying = Shared::new(Plain::cut_after(&image, Some(cut)));
            let Recovered { mut store, records, .. } =
                Store::recover(Box::new(dying.clone()), LIMIT).unwrap();
            let mut refs: BTreeMap<_, _> = records.iter().map(|f| (f.key, f.at)).collect();
            let mut after = before.clone();
            pass(&mut fastrand::Rng::with_seed(seed_of_pass), &mut store, &mut refs, &mut after);
            store.commit();
            let survived = !dying.0.lock().unwrap().is_cut();
            let expected = if survived { &after } else { &before };

            // A successor may be killed too, at any word of its recovery, and so may be the
            // next one.
            let mut image = dying.image();
            for again in [0, 1, 3, 10, 100] {
                let second = Shared::new(Plain::cut_after(&image, Some(again)));
                let _ = Store::recover(Box::new(second.clone()), LIMIT).unwrap();
                image = second.image();
            }
            let found = Store::recover(Box::new(Plain::cut_after(&image, None)), LIMIT).unwrap();
            let recovered = contents(&found.store, &found.records);
            // The very last word is the commit: written, or not written.
            assert!(
                recovered == *expected || recovered == after && cut > 0,
                "seed {seed}, cut after {cut} words"
            );
            assert!(found.erased.is_empty());
            if survived {
                break;
            }
            // Every word at first and around small writes; large payloads in strides.
            step = if cut > 400 { 37 } else { step };
            cut += step;
        }
    }
}

/// Overwrites random places, 300 times over. Recovery ends, and the records that it finds can
/// be used. A header that cannot be true is refused.
#[test]
fn damage_is_named_and_never_fatal() {
    let mut rng = fastrand::Rng::with_seed(7);
    let shared = Shared::new(Plain::default());
    let mut store = Store::create(Box::new(shared.clone()), LIMIT).unwrap();
    let (mut refs, mut model) = (BTreeMap::new(), Model::new());
    for _ in 0..50 {
        pass(&mut rng, &mut store, &mut refs, &mut model);
        store.commit();
    }
    let good = shared.image();
    let mut named = 0;
    for seed in 0..300 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut image = good.clone();
        for _ in 0..rng.usize(1..200) {
            let at = rng.usize(0..image.len());
            let end = (at + rng.usize(1..64)).min(image.len());
            rng.fill(&mut image[at..end]);
        }
        if let Ok(found) = Store::recover(Box::new(Plain::cut_after(&image, None)), LIMIT) {
            named += found.erased.len();
            // Records that recovery found can be read, and the store serves as any other.
            let mut store = found.store;
            for f in &found.records {
                store.read(f.at, <[u8]>::len);
                store.delete(f.at);
            }
            store.put(None, Kind::State, 1, b"goes on").unwrap();
            store.commit();
        }
    }
    assert!(named > 100, "{named} damaged records were found");
    let mut wild = good.clone();
    wild[EPOCH_AT..EPOCH_AT + 8].fill(0xff);
    let said = Store::recover(Box::new(Plain::cut_after(&wild, None)), LIMIT).err().unwrap();
    assert!(said.contains("epoch is damaged"), "{said}");
    for image in [vec![], vec![0; 100], vec![0; good.len()], vec![0xff; good.len()]] {
        assert!(Store::recover(Box::new(Plain::cut_after(&image, None)), LIMIT).is_err());
    }
}

/// Damages the directory: each byte by itself, each time to another class or to none, and all of
/// them at once. No record is lost, and the store serves on.
#[test]
fn a_damaged_directory_is_put_right_by_the_blocks() {
    let shared = Shared::new(Plain::default());
    let mut store = Store::create(Box::new(shared.clone()), 8 << 20).unwrap();
    let mut expected = Model::new();
    for (key, size) in (0..).zip(CLASSES.into_iter().take(14).flat_map(|size| [size; 3])) {
        // Payloads that look like blocks themselves: zeros, and ones whose words are all births.
        let bytes = vec![(key % 3) as u8; size - HEADER];
        store.put(None, Kind::State, key, &bytes).unwrap();
        expected.insert(key, bytes);
    }
    store.commit();
    let good = shared.image();
    let units = store.units.len();
    let mended = |image: &[u8]| {
        let found = Store::recover(Box::new(Plain::cut_after(image, None)), LIMIT).unwrap();
        assert_eq!(contents(&found.store, &found.records), expected);
        assert!(found.erased.is_empty(), "{:?}", found.erased);
        let mut store = found.store;
        store.put(None, Kind::State, 1 << 40, b"goes on").unwrap();
        store.commit();
        found.mended
    };
    assert_eq!(mended(&good), 0);
    let entries = DIRECTORY_AT..DIRECTORY_AT + units;
    let slabs: Vec<_> = entries.clone().filter(|at| good[*at] != 0).collect();
    let needed = (0..14).map(|class| 3_usize.div_ceil(slab_blocks(class)));
    assert_eq!(slabs.len(), needed.sum::<usize>());
    for &at in &slabs {
        for byte in [0, 1, good[at] - 1, good[at] + 1, 17, 99].into_iter().filter(|byte| *byte != good[at]) {
            let mut image = good.clone();
            image[at] = byte;
            assert_eq!(mended(&image), 1, "entry {at} was {} and is {byte}", good[at]);
        }
    }
    let mut image = good.clone();
    image[entries].fill(0);
    assert_eq!(mended(&image), slabs.len());
}

/// Fills a store to its limit. Puts without a reservation and deletions still succeed, and the
/// freed memory serves other sizes.
#[test]
fn a_full_store_refuses_keeps_what_it_has_and_still_closes() {
    let mut store = Store::new(1 << 20);
    let mut refs = Vec::new();
    while store.reserve([900]) {
        refs.push(store.put(None, Kind::State, refs.len() as u64, &[7; 900]).unwrap());
    }
    assert!((900..=1024).contains(&refs.len()), "{} records", refs.len());
    assert!(!store.reserve([900]) && !store.reserve([RECORD_BYTES_MAX + 1]));
    assert_eq!(store.put(None, Kind::State, 0, &vec![0; RECORD_BYTES_MAX + 1]), Err(Full));
    // The reserve is for records of sessions that continue.
    store.put(None, Kind::Session, 1, &[1; 128]).unwrap();
    store.commit();
    for r in refs.drain(..) {
        store.read(r, |b| assert_eq!(b, [7; 900]));
        store.delete(r);
    }
    assert!(!store.reserve([900]), "what dies in this pass is not free before it is committed");
    store.commit();
    assert!(store.reserve([900; 900]));
    // Memory that held blocks of one size then holds blocks of another.
    for len in [100_000, 40, 3000, 900] {
        let mut n = 0;
        while store.reserve([len]) {
            refs.push(store.put(None, Kind::Input, n, &vec![1; len]).unwrap());
            n += 1;
        }
        assert!(n as usize * (len + HEADER) > (1 << 20) / 3, "{n} records of {len} bytes");
        store.commit();
        refs.drain(..).for_each(|r| store.delete(r));
        store.commit();
        assert_eq!(store.count(Kind::Input), 0);
    }
}

/// A reader gets a pinned epoch whole, whatever the writer does between any two of its reads.
/// If the pin was given up, the reader learns it at the unpin.
#[test]
fn a_pinned_epoch_is_read_while_the_writer_goes_on() {
    let mut given_up = 0;
    for seed in 0..30 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let shared = Shared::new(Plain::default());
        // Some stores are full: there pins give way to writers.
        let limit = if seed % 3 == 1 { LIMIT } else { 64 * LIMIT };
        let mut store = Store::create(Box::new(shared.clone()), limit).unwrap();
        let (mut refs, mut model) = (BTreeMap::new(), Model::new());
        for _ in 0..rng.usize(0..30) {
            pass(&mut rng, &mut store, &mut refs, &mut model);
            store.commit();
        }
        let pinned = model.clone();
        let epoch = store.pin(if seed % 3 == 0 { 100_000 } else { 64 * LIMIT });
        let len = shared.image().len();
        // The filter leaves out a third of the records, or all, or a seventh.
        let (mut aside, left_out_of) = (Model::new(), [3, 1, 7][seed as usize / 3 % 3]);
        let image = copy_at(
            len,
            epoch,
            limit,
            |at, into| {
                for _ in 0..rng.usize(0..4) {
                    pass(&mut rng, &mut store, &mut refs, &mut model);
                    if rng.bool() {
                        store.commit();
                    }
                }
                into.copy_from_slice(&shared.image()[at..at + into.len()]);
                Ok(())
            },
            |seen| {
                assert!(seen.is_whole(), "seed {seed}");
                let left_out = seen.key.is_multiple_of(left_out_of);
                if left_out {
                    aside.insert(seen.key, seen.bytes.to_vec());
                }
                !left_out
            },
        )
        .unwrap();
        store.commit();
        if !store.unpin(epoch) {
            given_up += 1;
            continue;
        }
        let found = Store::recover(Box::new(Plain::cut_after(&image, None)), limit).unwrap();
        let mut seen = contents(&found.store, &found.records);
        assert!(!seen.keys().any(|key| aside.contains_key(key)), "seed {seed}: left out, and yet there");
        seen.append(&mut aside);
        assert_eq!(seen, pinned, "seed {seed}");
        assert!(found.erased.is_empty(), "seed {seed}: {:?}", found.erased);
        // Blocks that were held for the reader are free again.
        refs.into_values().for_each(|r| store.delete(r));
        store.commit();
        assert!(store.pins.are_none() && store.used.iter().all(|n| *n == 0));
    }
    assert!((1..=20).contains(&given_up), "{given_up} pins went over their limit");
}

/// A store of layout 1 is read with the limit that the caller gives, and is one of layout 2
/// then.
#[test]
fn the_layout_before_this_one_is_read() {
    let mut store = Store::new(LIMIT);
    store.put(None, Kind::State, 7, b"kept").unwrap();
    store.commit();
    let mut image = store.image().to_vec();
    // Layout 1 has no limit in its header, and is like layout 2 otherwise.
    image[LAYOUT_AT..LAYOUT_AT + 8].copy_from_slice(&1u64.to_le_bytes());
    image[BYTES_MAX_AT..BYTES_MAX_AT + 8].fill(0);
    let found = Store::recover(Box::new(Plain::cut_after(&image, None)), LIMIT).unwrap();
    assert_eq!(contents(&found.store, &found.records), Model::from([(7, b"kept".to_vec())]));
    // With layout 2 the limit that the caller gives does not matter.
    let again = Store::recover(Box::new(Plain::cut_after(found.store.image(), None)), 1).unwrap();
    assert_eq!(again.records.len(), 1);
    image[LAYOUT_AT] = 9;
    let said = Store::recover(Box::new(Plain::cut_after(&image, None)), LIMIT).err().unwrap();
    assert!(said.contains("layout 9"), "{said}");
}

/// A unit whose class is lost, with no block that could tell it, is given up alone. Records behind
/// it stay, and records in it never come back, even after its memory is used again.
#[test]
fn a_hole_in_the_directory_hides_nothing_behind_it() {
    let mut store = Store::new(LIMIT);
    let refs: Vec<_> = (0..600).map(|k| store.put(None, Kind::State, k, &[k as u8; 900]).unwrap()).collect();
    store.commit();
    let hole = store.unit_of(refs[100]);
    let lost: Vec<_> = (0..600).filter(|k| store.unit_of(refs[*k as usize]) == hole).collect();
    for class in [0, 17, 200] {
        let mut image = store.image().to_vec();
        image[DIRECTORY_AT + hole] = class;
        for k in &lost {
            image[offset(refs[*k as usize]) + HEADER] ^= 1;
        }
        let shared = Shared::new(Plain::from(image));
        let found = Store::recover(Box::new(shared.clone()), LIMIT).unwrap();
        let kept = contents(&found.store, &found.records);
        assert!((0..600).all(|k| kept.contains_key(&k) != lost.contains(&k)), "class {class}");
        assert!(!found.erased.is_empty());
        // Every free block is filled again, and recovered once more.
        let mut store = found.store;
        let mut key = 1000;
        while store.reserve([900]) {
            store.put(None, Kind::State, key, &[7; 900]).unwrap();
            key += 1;
        }
        store.commit();
        let again = Store::recover(Box::new(Plain::from(shared.image())), LIMIT).unwrap();
        let all = contents(&again.store, &again.records);
        assert_eq!(
            (all.len() as u64, again.erased.len()),
            (kept.len() as u64 + key - 1000, 0),
            "class {class}"
        );
    }
}

/// Records of a later build are erased by name, and are not taken for damage.
#[test]
fn records_of_later_versions_and_kinds_are_named_and_the_rest_is_read() {
    const LATER_KIND: u8 = 63;
    let mut store = Store::new(LIMIT);
    for key in 1..=4 {
        store.put(None, Kind::Timer, key, b"three o'clock").unwrap();
    }
    store.commit();
    let mut image = store.image().to_vec();
    let block = |key: u64| {
        let at = |i: usize| units_at(LIMIT) + i * CLASSES[0];
        (0..4).map(at).find(|at| Header::read(store.image(), *at).key == key).unwrap()
    };
    let mut rewrite = |key: u64, change: &dyn Fn(&mut Header), sums: bool| {
        let at = block(key);
        let mut header = Header::read(&image, at);
        change(&mut header);
        if sums {
            header.sum = block::sum(header.kind, header.version, key, b"three o'clock");
        }
        let mut memory = Plain::from(std::mem::take(&mut image));
        memory.write(at + REST_AT, &header.rest());
        image = memory.bytes().to_vec();
    };
    rewrite(1, &|h| h.version = Kind::Timer.version() + 1, true);
    rewrite(2, &|h| h.kind = LATER_KIND, true);
    rewrite(3, &|h| h.version = Kind::Timer.version() + 1, false);

    let found = Store::recover(Box::new(Plain::from(image)), LIMIT).unwrap();

    let kind = Kind::Timer as u8;
    let expected = [
        Erased { kind, key: 1, is_later: true },
        Erased { kind: LATER_KIND, key: 2, is_later: true },
        Erased { kind, key: 3, is_later: false },
    ];
    assert_eq!(found.erased, expected);
    let left: Vec<_> = found.records.iter().map(|f| (f.kind, f.version, f.key)).collect();
    assert_eq!(left, [(Kind::Timer, 0, 4)]);
}

/// A byte of the directory beyond the last unit that has memory makes no unit.
#[test]
fn a_byte_behind_the_directory_is_no_unit() {
    let mut store = Store::new(LIMIT);
    store.put(None, Kind::State, 1, &[1; 900]).unwrap();
    store.commit();
    let mut image = store.image().to_vec();
    image[DIRECTORY_AT + (memory_bytes(LIMIT) - units_at(LIMIT)) / UNIT - 1] = 3;
    let found = Store::recover(Box::new(Plain::from(image)), LIMIT).unwrap();
    assert_eq!((found.records.len(), found.erased.len()), (1, 1));
    let mut store = found.store;
    let mut key = 2;
    while store.reserve([900]) {
        store.put(None, Kind::State, key, &[7; 900]).unwrap();
        key += 1;
    }
    assert!(key > 900, "{key} records fit");
}

/// At the limit a writer gets the blocks that a reader holds back, from the first record on.
/// The reader learns it at the unpin.
#[test]
fn a_writer_at_the_limit_is_not_refused_for_a_reader() {
    let mut store = Store::new(LIMIT);
    let mut refs = Vec::new();
    while store.reserve([900]) {
        refs.push(store.put(None, Kind::State, refs.len() as u64, &[7; 900]).unwrap());
    }
    store.commit();
    let epoch = store.pin(usize::MAX);
    for r in refs.iter_mut().take(5) {
        store.delete(*r);
    }
    store.commit();
    assert!(store.reserve([900]), "what the reader held back is there");
    assert!(!store.unpin(epoch), "and the reader has to do without");
}

/// Reservations of many records of different sizes end at the limit: with room for all of them,
/// or with a refusal. Pins that nobody removes change nothing.
#[test]
fn a_large_reservation_at_the_limit_is_made_or_refused() {
    for pinned in [false, true] {
        let mut store = Store::new(LIMIT);
        let mut refs: Vec<Ref> = Vec::new();
        let (mut made, mut refused, mut key) = (0, 0, 0);
        for round in 0..400 {
            let (len, count) = ([20, 100, 700, 5000][round % 4], 1 + round * 7 % 300);
            if pinned && round % 16 == 0 {
                store.pin(1 << 18);
            }
            if store.reserve(std::iter::repeat_n(len, count)) {
                for _ in 0..count {
                    key += 1;
                    refs.push(store.put(None, Kind::Entry, key, &vec![7; len]).expect("room was made"));
                }
                made += 1;
            } else {
                refused += 1;
                refs.drain(..refs.len() / 2).for_each(|r| store.delete(r));
            }
            store.commit();
        }
        assert!(made > 50 && refused > 20, "{made} made, {refused} refused");
        for r in refs.drain(..) {
            store.delete(r);
        }
        store.commit();
        assert_eq!(store.bytes(), 0);
    }
}
