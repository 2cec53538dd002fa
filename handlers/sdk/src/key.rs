//! Keys of tables as bytes, whose order is the order of the keys.
//!
//! | type | bytes |
//! | --- | --- |
//! | unsigned number | big-endian |
//! | signed number | big-endian, with the sign's bit turned over |
//! | `bool`, `char` | one byte; the code point as a number |
//! | text, bytes | as they are; if a part follows, each 0 is 0 255, and 0 0 stands behind |
//! | `Duration` | seconds, then nanoseconds |
//! | `Option` | 0, or 1 and the key |
//! | tuple | its parts, one behind the other |
//!
//! So a table whose keys are names has the same bytes with typed keys as with plain ones.

use crate::bytes::Bytes;
use std::time::Duration;

/// Key of a [`crate::Map`]. Equal keys have equal bytes, and bytes are in the order of the keys.
///
/// Implemented for numbers, `bool`, `char`, `String`, [`Bytes`], arrays of bytes,
/// [`Duration`], `Option` of a key, and tuples of up to four of them.
///
/// ```
/// use greenroom_handler::{Key, Map};
///
/// /// Place on a board, in rows from the top.
/// #[derive(Debug, PartialEq)]
/// struct Place {
///     row: u8,
///     column: u8,
/// }
///
/// impl Key for Place {
///     fn write(&self, to: &mut Vec<u8>) {
///         (self.row, self.column).write(to);
///     }
///     fn read(from: &mut &[u8]) -> Option<Place> {
///         let (row, column) = Key::read(from)?;
///         Some(Place { row, column })
///     }
/// }
///
/// const BOARD: Map<Place, char> = Map::new("board");
///
/// let mut bytes = Vec::new();
/// Place { row: 1, column: 2 }.write_last(&mut bytes);
/// assert_eq!(Place::read_last(&bytes), Some(Place { row: 1, column: 2 }));
/// assert_eq!(BOARD.key(&bytes).unwrap(), Place { row: 1, column: 2 });
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no key of a table: its bytes would have no order",
    label = "not a key",
    note = "keys are numbers, bool, char, String, Bytes, [u8; N], Duration, Option of those, and tuples of them"
)]
pub trait Key: Sized {
    /// Appends the key, so that others may follow.
    fn write(&self, to: &mut Vec<u8>);

    /// Reads a key that others may follow, and takes its bytes away. `None`: they are no such key.
    fn read(from: &mut &[u8]) -> Option<Self>;

    /// Appends the key as the last part of a whole.
    fn write_last(&self, to: &mut Vec<u8>) {
        self.write(to);
    }

    /// Reads a key that is the last part of a whole.
    fn read_last(mut from: &[u8]) -> Option<Self> {
        let key = Self::read(&mut from)?;
        from.is_empty().then_some(key)
    }
}

/// Argument that stands for a key of type `K`: the key by reference, or for text and bytes what
/// can be borrowed from them.
///
/// ```
/// use greenroom_handler::{KeyPart, Map, Result, Turn};
///
/// const POINTS: Map<(u32, String), i64> = Map::new("points");
///
/// /// Takes what the map takes, by value or borrowed.
/// fn points(turn: &mut Turn, of: impl KeyPart<(u32, String)>) -> Result<i64> {
///     Ok(POINTS.get(turn, of)?.unwrap_or(0))
/// }
///
/// fn both(turn: &mut Turn) -> Result<i64> {
///     let ann = (7, "ann".to_owned());
///     Ok(points(turn, &ann)? + points(turn, (7, "bob"))?)
/// }
///
/// // Numbers are big-endian, so bytes have the order of numbers. The last text has no end.
/// let mut key = Vec::new();
/// KeyPart::<(u32, String)>::put_last(&(7, "bob"), &mut key);
/// assert_eq!(key, b"\0\0\0\x07bob");
/// // Behind a text that is not the last stand two zeros.
/// let mut begin = Vec::new();
/// KeyPart::<String>::put(&"bob", &mut begin);
/// assert_eq!(begin, b"bob\0\0");
/// ```
pub trait KeyPart<K> {
    /// Appends the key, so that others may follow.
    fn put(&self, to: &mut Vec<u8>);

    /// Appends the key as the last part of a whole.
    fn put_last(&self, to: &mut Vec<u8>);
}

impl<K: Key> KeyPart<K> for &K {
    fn put(&self, to: &mut Vec<u8>) {
        self.write(to);
    }
    fn put_last(&self, to: &mut Vec<u8>) {
        self.write_last(to);
    }
}

impl KeyPart<String> for &str {
    fn put(&self, to: &mut Vec<u8>) {
        escape(self.as_bytes(), to);
    }
    fn put_last(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(self.as_bytes());
    }
}

impl KeyPart<Bytes> for &[u8] {
    fn put(&self, to: &mut Vec<u8>) {
        escape(self, to);
    }
    fn put_last(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(self);
    }
}

/// Numbers: big-endian, and with a sign so that negative ones come first.
macro_rules! numbers {
    ($($type:ty, $flip:expr);+ $(;)?) => {
        $(
            impl Key for $type {
                fn write(&self, to: &mut Vec<u8>) {
                    to.extend_from_slice(&(*self ^ $flip).to_be_bytes());
                }
                fn read(from: &mut &[u8]) -> Option<Self> {
                    Some(<$type>::from_be_bytes(take(from)?) ^ $flip)
                }
            }

            impl KeyPart<$type> for $type {
                fn put(&self, to: &mut Vec<u8>) {
                    self.write(to);
                }
                fn put_last(&self, to: &mut Vec<u8>) {
                    self.write(to);
                }
            }
        )+
    };
}

numbers!(
    u8, 0; u16, 0; u32, 0; u64, 0; u128, 0;
    i8, i8::MIN; i16, i16::MIN; i32, i32::MIN; i64, i64::MIN; i128, i128::MIN;
);

impl Key for bool {
    fn write(&self, to: &mut Vec<u8>) {
        u8::from(*self).write(to);
    }
    fn read(from: &mut &[u8]) -> Option<bool> {
        match u8::read(from)? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }
}

impl Key for char {
    fn write(&self, to: &mut Vec<u8>) {
        u32::from(*self).write(to);
    }
    fn read(from: &mut &[u8]) -> Option<char> {
        char::from_u32(u32::read(from)?)
    }
}

impl Key for Duration {
    fn write(&self, to: &mut Vec<u8>) {
        (self.as_secs(), self.subsec_nanos()).write(to);
    }
    fn read(from: &mut &[u8]) -> Option<Duration> {
        let (seconds, nanoseconds) = Key::read(from)?;
        Some(Duration::new(seconds, nanoseconds)).filter(|d| d.subsec_nanos() == nanoseconds)
    }
}

impl<const N: usize> Key for [u8; N] {
    fn write(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(self);
    }
    fn read(from: &mut &[u8]) -> Option<[u8; N]> {
        take(from)
    }
}

impl Key for Bytes {
    fn write(&self, to: &mut Vec<u8>) {
        escape(self, to);
    }
    fn read(from: &mut &[u8]) -> Option<Bytes> {
        unescape(from).map(Bytes)
    }
    fn write_last(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(self);
    }
    fn read_last(from: &[u8]) -> Option<Bytes> {
        Some(Bytes(from.to_vec()))
    }
}

impl Key for String {
    fn write(&self, to: &mut Vec<u8>) {
        escape(self.as_bytes(), to);
    }
    fn read(from: &mut &[u8]) -> Option<String> {
        String::from_utf8(unescape(from)?).ok()
    }
    fn write_last(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(self.as_bytes());
    }
    fn read_last(from: &[u8]) -> Option<String> {
        String::from_utf8(from.to_vec()).ok()
    }
}

impl<K: Key> Key for Option<K> {
    fn write(&self, to: &mut Vec<u8>) {
        self.is_some().write(to);
        self.iter().for_each(|key| key.write(to));
    }
    fn read(from: &mut &[u8]) -> Option<Option<K>> {
        match bool::read(from)? {
            true => K::read(from).map(Some),
            false => Some(None),
        }
    }
    fn write_last(&self, to: &mut Vec<u8>) {
        self.is_some().write(to);
        self.iter().for_each(|key| key.write_last(to));
    }
    fn read_last(mut from: &[u8]) -> Option<Option<K>> {
        match bool::read(&mut from)? {
            true => K::read_last(from).map(Some),
            false => from.is_empty().then_some(None),
        }
    }
}

/// Tuples: all parts but the last one end themselves.
macro_rules! tuples {
    ($(($($part:ident $given:ident $at:tt),*; $last:ident $last_given:ident $last_at:tt)),+ $(,)?) => {
        $(
            impl<$($part: Key,)* $last: Key> Key for ($($part,)* $last,) {
                fn write(&self, to: &mut Vec<u8>) {
                    $(self.$at.write(to);)*
                    self.$last_at.write(to);
                }
                fn read(from: &mut &[u8]) -> Option<Self> {
                    Some(($($part::read(from)?,)* $last::read(from)?,))
                }
                fn write_last(&self, to: &mut Vec<u8>) {
                    $(self.$at.write(to);)*
                    self.$last_at.write_last(to);
                }
                fn read_last(mut from: &[u8]) -> Option<Self> {
                    let _from = &mut from;
                    Some(($($part::read(_from)?,)* $last::read_last(_from)?,))
                }
            }

            impl<$($part, $given: KeyPart<$part>,)* $last, $last_given: KeyPart<$last>>
                KeyPart<($($part,)* $last,)> for ($($given,)* $last_given,)
            {
                fn put(&self, to: &mut Vec<u8>) {
                    $(self.$at.put(to);)*
                    self.$last_at.put(to);
                }
                fn put_last(&self, to: &mut Vec<u8>) {
                    $(self.$at.put(to);)*
                    self.$last_at.put_last(to);
                }
            }
        )+
    };
}

tuples!(
    (; A GA 0),
    (A GA 0; B GB 1),
    (A GA 0, B GB 1; C GC 2),
    (A GA 0, B GB 1, C GC 2; D GD 3),
);

/// Takes so many bytes off the beginning.
fn take<const N: usize>(from: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = from.split_first_chunk()?;
    *from = rest;
    Some(*taken)
}

/// Appends bytes and their end, in an order that what follows can't change.
fn escape(bytes: &[u8], to: &mut Vec<u8>) {
    for byte in bytes {
        to.push(*byte);
        to.extend((*byte == 0).then_some(u8::MAX));
    }
    to.extend([0, 0]);
}

/// Takes bytes and their end off the beginning.
fn unescape(from: &mut &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        match **from {
            [0, 0, ref rest @ ..] => {
                *from = rest;
                return Some(bytes);
            }
            [0, u8::MAX, ref rest @ ..] => {
                bytes.push(0);
                *from = rest;
            }
            [byte, ref rest @ ..] if byte != 0 => {
                bytes.push(byte);
                *from = rest;
            }
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Debug;

    /// Keys come back, and their bytes are in their order, alone and in front of others.
    fn ordered<K: Key + Ord + Clone + Debug>(mut keys: Vec<K>) {
        keys.sort();
        let bytes = |key: &K| {
            let mut last = Vec::new();
            key.write_last(&mut last);
            assert_eq!(K::read_last(&last).as_ref(), Some(key));
            let mut inner = Vec::new();
            (key.clone(), 7_u8).write(&mut inner);
            assert_eq!(Key::read_last(&inner), Some((key.clone(), 7_u8)));
            (last, inner)
        };
        let all: Vec<_> = keys.iter().map(bytes).collect();
        for (pair, keys) in all.windows(2).zip(keys.windows(2)) {
            let same = keys[0] == keys[1];
            assert!(pair[0].0 < pair[1].0 || same, "{keys:?}: {pair:?}");
            assert!(pair[0].1 < pair[1].1 || same, "{keys:?}: {pair:?}");
        }
    }

    #[test]
    fn bytes_of_keys_are_in_the_order_of_the_keys() {
        ordered(vec![0_u64, 1, 255, 256, u64::MAX]);
        ordered(vec![i64::MIN, -256, -1, 0, 1, 255, i64::MAX]);
        ordered(vec![i8::MIN, -1, 0, i8::MAX]);
        ordered(vec![false, true]);
        ordered(vec!['a', 'ü', '\u{10ffff}']);
        let texts = ["", "\0", "\0\0", "\0a", "\u{1}", "a", "a\0", "a\0b", "aa", "b", "ü"];
        ordered(texts.map(String::from).to_vec());
        ordered(texts.map(|text| Bytes::from(text.as_bytes())).to_vec());
        ordered(vec![Duration::ZERO, Duration::from_nanos(1), Duration::from_secs(1), Duration::MAX]);
        ordered(vec![None, Some(String::new()), Some("a".into())]);
        let pairs = texts.iter().flat_map(|a| [-1, 0, 1].map(|n| ((*a).to_owned(), n)));
        ordered(pairs.collect());
        let triples = texts.iter().flat_map(|a| texts.map(|b| ((*a).to_owned(), b.to_owned(), 3_u16)));
        ordered(triples.collect());
    }

    /// Other bytes are no key, and borrowed parts make the same bytes.
    #[test]
    fn what_is_no_key_is_refused() {
        assert_eq!(u32::read_last(&[0, 0, 1]), None);
        assert_eq!(u32::read_last(&[0, 0, 0, 1, 1]), None);
        assert_eq!(bool::read_last(&[2]), None);
        assert_eq!(char::read_last(&[0, 0, 0xd8, 0]), None);
        assert_eq!(<(String, u8)>::read_last(b"ab\x01"), None);
        assert_eq!(<(String, u8)>::read_last(b"ab\0\x01\x01"), None);
        assert_eq!(String::read_last(&[0xff]), None);
        let (mut owned, mut lent) = (Vec::new(), Vec::new());
        ("room".to_owned(), 7_u32, "who".to_owned()).write_last(&mut owned);
        KeyPart::<(String, u32, String)>::put_last(&("room", 7_u32, "who"), &mut lent);
        assert_eq!(owned, lent);
    }
}
