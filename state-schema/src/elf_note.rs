//! ELF note of a library, which the host judges before any of the library's code runs.
//!
//! Owner `Greenroom`, type [`TYPE`], in the section [`SECTION`]. The descriptor is text, a
//! `key=value` in each line:
//!
//! ```text
//! abi=1.0
//! sdk=0.1.0
//! entry=greenroom_entry_chat
//! panic=unwind
//! library=chat
//! service=chat:1
//! ```
//!
//! `service` names a service and its state version, and may repeat. Readers skip keys that they
//! do not know, so that later versions may add some. Of another key that is there twice, the
//! last one counts.
//!
//! The SDK's `export!` writes the note, and a C library by hand. The host refuses libraries by
//! the note, before it loads them. After loading, the library's own table says what it offers.

use std::fmt;

/// Owner of the note, with the zero byte that ELF wants.
pub const OWNER: &[u8; 10] = b"Greenroom\0";
/// Type of the note: "GRNM".
pub const TYPE: u32 = 0x4752_4e4d;
/// Section that holds the note.
pub const SECTION: &str = ".note.greenroom";

/// Description of a library.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// ABI major and minor version.
    pub abi: (u16, u16),
    /// Version of the SDK that built it, or words of the author's.
    pub sdk: String,
    /// Symbol of its entry function, which the host looks up.
    pub entry: String,
    /// Effect of a panic: `unwind` or `abort`. The host refuses all but `unwind`.
    pub panic: String,
    /// Name of the library.
    pub library: String,
    /// Services with their state versions.
    pub services: Vec<(String, u32)>,
}

/// Reason why a note can't be read. Printed as a sentence about the library.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadNote(String);

impl fmt::Display for BadNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "its Greenroom note can't be read: {}", self.0)
    }
}

impl std::error::Error for BadNote {}

impl Note {
    /// Reads a note's descriptor. Trailing zero bytes are padding. Fails if a line has no `=`,
    /// a value is malformed, or one of the keys above is missing. O(bytes).
    pub fn parse(desc: &[u8]) -> Result<Note, BadNote> {
        let bad = |what: &str| BadNote(what.to_owned());
        let text = std::str::from_utf8(desc).map_err(|_| bad("it is not UTF-8"))?.trim_end_matches('\0');
        let (mut abi, mut sdk, mut entry, mut panic, mut library) = (None, None, None, None, None);
        let mut services = Vec::new();
        for line in text.lines() {
            let (key, value) = line.split_once('=').ok_or_else(|| bad("a line has no `=`"))?;
            match key {
                "abi" => {
                    let (major, minor) =
                        value.split_once('.').ok_or_else(|| bad("abi is not MAJOR.MINOR"))?;
                    let number = |s: &str| s.parse::<u16>().map_err(|_| bad("abi is not MAJOR.MINOR"));
                    abi = Some((number(major)?, number(minor)?));
                }
                "sdk" => sdk = Some(value.to_owned()),
                "entry" => entry = Some(value.to_owned()),
                "panic" => panic = Some(value.to_owned()),
                "library" => library = Some(value.to_owned()),
                "service" => {
                    let (name, version) =
                        value.split_once(':').ok_or_else(|| bad("a service is not NAME:VERSION"))?;
                    let version = version.parse().map_err(|_| bad("a service is not NAME:VERSION"))?;
                    if !is_name(name) {
                        return Err(BadNote(format!(
                            "service name {name:?} is none: names are 1 to 64 letters, digits, - and _"
                        )));
                    }
                    services.push((name.to_owned(), version));
                }
                // A later version's key.
                _ => {}
            }
        }
        let missing = |what: &str| BadNote(format!("it has no `{what}`"));
        let note = Note {
            abi: abi.ok_or_else(|| missing("abi"))?,
            sdk: sdk.ok_or_else(|| missing("sdk"))?,
            entry: entry.ok_or_else(|| missing("entry"))?,
            panic: panic.ok_or_else(|| missing("panic"))?,
            library: library.filter(|l| is_name(l)).ok_or_else(|| missing("library"))?,
            services,
        };
        if note.services.is_empty() {
            return Err(missing("service"));
        }
        Ok(note)
    }
}

/// Whether a library, service or table may have this name: 1 to 64 letters, digits, `-` and
/// `_`. Names go into file names, logs and configuration keys.
pub fn is_name(s: &str) -> bool {
    !s.is_empty() && s.len() <= 64 && s.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str =
        "abi=1.0\nsdk=0.1.0\nentry=e\npanic=unwind\nlibrary=echo\nservice=echo:0\nservice=tally:3\nnew=x\n";

    /// Unknown keys and padding are skipped, and services come in their order.
    #[test]
    fn reads_what_it_knows_and_skips_the_rest() {
        let note = Note::parse(&[GOOD.as_bytes(), &[0, 0]].concat()).unwrap();
        assert_eq!((note.abi, note.entry.as_str(), note.library.as_str()), ((1, 0), "e", "echo"));
        assert_eq!(note.services, [("echo".to_owned(), 0), ("tally".to_owned(), 3)]);
    }

    /// Each error names the key or the form that is missing.
    #[test]
    fn says_what_is_wrong() {
        for (from, to, says) in [
            ("abi=1.0", "abi=1", "abi is not MAJOR.MINOR"),
            ("abi=1.0\n", "", "no `abi`"),
            ("service=echo:0", "service=echo", "NAME:VERSION"),
            ("service=echo:0", "service=../etc:0", "letters, digits"),
            ("panic=unwind\n", "", "no `panic`"),
            ("sdk=0.1.0", "sdk", "no `=`"),
        ] {
            let text = GOOD.replace(from, to);
            let err = Note::parse(text.as_bytes()).unwrap_err().to_string();
            assert!(err.contains(says), "{to:?}: {err}");
        }
        assert!(Note::parse(b"\xff").unwrap_err().to_string().contains("UTF-8"));
    }
}
