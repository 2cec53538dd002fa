//! ELF note of a library, built at compile time.
//!
//! The host reads the note before any code runs: ABI version, entry function, panic strategy,
//! services. Reading a file cannot crash the host, loading one can. Everything here is `const`,
//! so a note that does not fit is an error of the build, not of the load.
//!
//! ```text
//! owner_len (u32)  text_len (u32)  type (u32)  "Greenroom\0" + 2 zero bytes  text + zero bytes
//! ```

use greenroom_state::abi;
use greenroom_state::elf_note::{OWNER, TYPE};

/// Beginning of the note's text. The numbers are literals, because `concat!` takes no
/// constants; the assertion below keeps them true.
pub const HEAD: &[u8] = concat!("abi=1.9\nsdk=", env!("CARGO_PKG_VERSION")).as_bytes();
const _: () = assert!(abi::MAJOR == 1 && abi::MINOR == 9, "HEAD names the ABI's version");

/// ELF note: header, owner, text. Sizes are rounded up to four bytes, as ELF wants.
#[repr(C, align(4))]
pub struct Note<const N: usize> {
    /// Length of the owner's name, with its zero byte and without padding.
    owner_len: u32,
    /// Length of the text, with its padding.
    text_len: u32,
    /// Type of the note.
    kind: u32,
    /// Name of the owner, padded to a multiple of four bytes.
    owner: [u8; 12],
    /// Text of the note, padded with zero bytes.
    text: [u8; N],
}

impl<const N: usize> Note<N> {
    /// Joins the parts of the text. `N` is [`note_len`] of the same parts; if smaller, the
    /// build fails.
    pub const fn new(parts: &[&[u8]]) -> Note<N> {
        let (mut text, mut at, mut i) = ([0; N], 0, 0);
        while i < parts.len() {
            let mut k = 0;
            while k < parts[i].len() {
                text[at] = parts[i][k];
                (at, k) = (at + 1, k + 1);
            }
            i += 1;
        }
        let mut owner = [0; 12];
        let mut k = 0;
        // Loops by index: iterators are not `const`.
        while k < OWNER.len() {
            owner[k] = OWNER[k];
            k += 1;
        }
        Note { owner_len: OWNER.len() as u32, text_len: N as u32, kind: TYPE, owner, text }
    }
}

/// Length of the parts together, rounded up to four bytes. O(parts).
pub const fn note_len(parts: &[&[u8]]) -> usize {
    let (mut len, mut i) = (0usize, 0);
    while i < parts.len() {
        len += parts[i].len();
        i += 1;
    }
    len.next_multiple_of(4)
}

/// Refuses two services of one name, and a name that is none. O(services² × bytes).
pub const fn check_names(names: &[&str]) {
    let mut i = 0;
    while i < names.len() {
        assert!(!names[i].is_empty(), "a service has no name: set `const SERVICE`");
        let mut k = i + 1;
        while k < names.len() {
            assert!(
                !is_same(names[i].as_bytes(), names[k].as_bytes()),
                "two services of `export!` have one name: change `const SERVICE` of one"
            );
            k += 1;
        }
        i += 1;
    }
}

/// Whether two texts are the same.
const fn is_same(a: &[u8], b: &[u8]) -> bool {
    let mut i = 0;
    while i < a.len() && i < b.len() && a[i] == b[i] {
        i += 1;
    }
    i == a.len() && i == b.len()
}

/// Writes a number in ten decimal digits, as many as the largest has. A fixed width makes the
/// length of the note known before its content.
pub const fn digits(mut n: u32) -> [u8; 10] {
    let (mut text, mut i) = ([b'0'; 10], 10);
    while n > 0 {
        i -= 1;
        text[i] = b'0' + (n % 10) as u8;
        n /= 10;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use greenroom_state::elf_note;

    #[test]
    fn a_note_is_read_as_it_was_built() {
        const PARTS: &[&[u8]] = &[
            HEAD,
            b"\nentry=e\nlibrary=l\npanic=unwind\nservice=s:",
            &digits(u32::MAX),
            b"\nservice=t:",
            &digits(0),
            b"\n",
        ];
        static NOTE: Note<{ note_len(PARTS) }> = Note::new(PARTS);
        assert_eq!(NOTE.text_len as usize % 4, 0);
        let note = elf_note::Note::parse(&NOTE.text).expect("a note");
        assert_eq!(note.abi, (abi::MAJOR, abi::MINOR));
        assert_eq!(note.services, [("s".to_owned(), u32::MAX), ("t".to_owned(), 0)]);
    }
}
