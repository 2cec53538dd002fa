//! Saved file: tables and ledger, kept for the next host.
//!
//! The file is read when a worker starts and finds no library record and no session. Sessions
//! are not in the file: their sockets end with the keeper. The worker writes at intervals and
//! at a stop.
//!
//! ```text
//! "GREENROOM TABLES 2\n"
//! items:  kind (u8)  version (u32)  length (u32)  bytes      integers are little-endian
//! 0 (u8)
//! SHA-256 of all bytes before (32 bytes)
//! ```
//!
//! A file is written beside its place, synced and renamed, so the place always holds a whole
//! file. A crash at any instruction leaves the previous file and perhaps an unfinished one
//! beside it, which the next save replaces. A damaged file is renamed to a name that says so.
//! The host starts without that data. What is no file of tables is never renamed or replaced.
//!
//! The checksum covers the whole file and not each item: half of the tables would be a state
//! that no host ever had. Writing streams, from the core or from a snapshot of its records.
//! Reading holds the whole file in memory. Both are O(bytes).

use crate::memory::snapshot::each_record;
use crate::saved_place::{discard, is_of_tables, make_dirs, not_of_tables, open, target, with_suffix};
use greenroom_core::core::Core;
use greenroom_core::limits::host::Limits;
use greenroom_core::store::kind::Kind;
use greenroom_core::tables::prefixes::DroppedPrefixes;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, BufWriter, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::SystemTime;

/// First line of a file of the present format.
const HEAD: &[u8] = b"GREENROOM TABLES 2\n";
/// First line of the older format, whose items have no versions. Read as version 0, never
/// written.
const HEAD_1: &[u8] = b"GREENROOM TABLES 1\n";
/// Byte in place of a kind behind the last item. No [`Kind`] that is saved has this number.
const END: u8 = 0;
/// Bytes of the checksum.
const SUM_BYTES: usize = 32;

/// Counts of a file, for the log.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Saved {
    /// Entries of tables.
    pub entries: usize,
    /// Lines of the ledger.
    pub lines: usize,
}

impl Saved {
    /// Counts an item. The connection number is neither, so it is not counted.
    fn count(&mut self, kind: Kind) {
        match kind {
            Kind::Entry | Kind::Expiring => self.entries += 1,
            Kind::Ledger => self.lines += 1,
            _ => {}
        }
    }
}

/// Writer that hashes what it writes.
struct Summed<W> {
    out: W,
    sum: Sha256,
}

impl<W: Write> Write for Summed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.out.write(bytes)?;
        // Only the bytes that were taken: a short write is repeated with the rest.
        self.sum.update(&bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Bytes after which a file that is being written is synced: the last sync has little to do then,
/// and a disk that is slow shows that it moves.
const SYNC_EVERY: usize = 16 << 20;

/// A file that is being written beside its place.
struct Writer<'a> {
    out: Summed<BufWriter<File>>,
    saved: Saved,
    /// Bytes since the last sync.
    unsynced: usize,
    /// Called after each sync.
    moved: &'a mut dyn FnMut(),
}

impl<'a> Writer<'a> {
    /// Creates the file. See [`write()`].
    fn create(path: &Path, writer: &str, moved: &'a mut dyn FnMut()) -> io::Result<Writer<'a>> {
        if let Some(dir) = path.parent() {
            make_dirs(dir)?;
        }
        // For the host's user alone: tables hold whatever handlers keep.
        let unfinished = with_suffix(path, writer);
        // A link or a FIFO that somebody put there is not followed, and not waited for.
        match std::fs::remove_file(&unfinished) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(unfinished)?;
        file.set_permissions(Permissions::from_mode(0o600))?;
        let mut out = Summed { out: BufWriter::new(file), sum: Sha256::new() };
        out.write_all(HEAD)?;
        Ok(Writer { out, saved: Saved::default(), unsynced: 0, moved })
    }

    /// Writes one item.
    fn item(&mut self, kind: Kind, version: u32, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(&[kind as u8])?;
        self.out.write_all(&version.to_le_bytes())?;
        self.out.write_all(&(bytes.len() as u32).to_le_bytes())?;
        self.out.write_all(bytes)?;
        self.saved.count(kind);
        self.unsynced += bytes.len();
        if self.unsynced >= SYNC_EVERY {
            self.unsynced = 0;
            self.out.flush()?;
            self.out.out.get_ref().sync_data()?;
            (self.moved)();
        }
        Ok(())
    }

    /// Writes the end and the checksum, and syncs.
    fn end(mut self) -> io::Result<Saved> {
        self.out.write_all(&[END])?;
        let sum = self.out.sum.finalize();
        let mut out = self.out.out;
        out.write_all(&sum)?;
        let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        (self.moved)();
        Ok(self.saved)
    }
}

/// Writes the file beside its place. [`put_in_place`](crate::saved_place::put_in_place) makes it
/// count. `writer` is the suffix of the unfinished file: two writers may overlap, if a host stops
/// during a save. `moved` is called whenever a part is on disk.
///
/// The data is on disk when this returns. If an error is returned, the file in place is
/// untouched, and the unfinished one is gone. Blocks for the disk.
pub fn write(core: &Core, path: &Path, writer: &str, mut moved: impl FnMut()) -> io::Result<Saved> {
    let path = &target(path);
    let mut write = || {
        let mut file = Writer::create(path, writer, &mut moved)?;
        let mut result = Ok(());
        core.each_saved(|kind, version, bytes| {
            result = file.item(kind, version, bytes);
            // Ends the walk at the first error: nothing after it would be of use.
            result.is_ok()
        });
        result?;
        file.end()
    };
    write().inspect_err(|_| discard(path, writer))
}

/// Writes the file as [`write()`] does, from the records of a pinned epoch. Entries go from the
/// memory file to the disk one by one; ledger lines are collected first, as their order counts.
/// Entries that were `dropped` by then are left out. Blocks for the disk, so it runs on a thread.
pub fn write_at(
    region: &OwnedFd,
    limits: &Limits,
    (epoch, dropped): (u64, &DroppedPrefixes),
    path: &Path,
    writer: &str,
) -> io::Result<Saved> {
    let path = &target(path);
    items_at(region, limits, (epoch, dropped), path, writer).inspect_err(|_| discard(path, writer))
}

/// Writes the unfinished file as [`write_at`] does.
fn items_at(
    region: &OwnedFd,
    limits: &Limits,
    (epoch, dropped): (u64, &DroppedPrefixes),
    path: &Path,
    writer: &str,
) -> io::Result<Saved> {
    let mut moved = || {};
    let mut file = Writer::create(path, writer, &mut moved)?;
    let (mut lines, mut damaged) = (BTreeMap::new(), 0);
    let mut failed = None;
    let walked = each_record(region, limits, epoch, |seen| {
        if !matches!(seen.kind, Kind::Entry | Kind::Expiring | Kind::Ledger | Kind::Served) {
            return Ok(());
        }
        if dropped.has(seen) {
            return Ok(());
        }
        if !seen.is_whole() {
            damaged += 1;
            return Ok(());
        }
        let written = match seen.kind {
            Kind::Ledger => {
                lines.insert(seen.key, seen.bytes.to_vec());
                Ok(())
            }
            // The key of an entry is the version of its value.
            Kind::Entry | Kind::Expiring => file.item(seen.kind, seen.key as u32, seen.bytes),
            _ => file.item(seen.kind, 0, seen.bytes),
        };
        written.map_err(|e| {
            let why = e.to_string();
            failed = Some(e);
            why
        })
    });
    walked.map_err(|why| failed.unwrap_or_else(|| io::Error::other(why)))?;
    lines.values().try_for_each(|line| file.item(Kind::Ledger, 0, line))?;
    if damaged > 0 {
        tracing::error!("{damaged} records of tables and ledger are damaged, and are not in the saved file");
    }
    file.end()
}

/// Reason why a file gives no tables, in words that name the file.
#[derive(Debug, PartialEq, Eq)]
pub enum Unread {
    /// The file is damaged. It is kept under another name, and nothing of it was read.
    Aside(String),
    /// The file may be good: it can't be opened, is of a later version, or its tables don't fit
    /// the store. It stays as it is. A host that started without it would replace it with the next
    /// save.
    Stays(String),
}

/// Reads the file into a core that holds nothing yet. `None`: there is none. After an error the
/// core must not be used if the file stays: a part of the tables may be in it.
pub fn read(core: &mut Core, path: &Path) -> Result<Option<Saved>, Unread> {
    let mut bytes = Vec::new();
    let Some(mut file) = open(path).map_err(Unread::Stays)? else { return Ok(None) };
    if let Err(e) = file.read_to_end(&mut bytes) {
        return Err(Unread::Stays(format!("{} can't be read: {e}", path.display())));
    }
    if !is_of_tables(&bytes) {
        return Err(Unread::Stays(not_of_tables(path)));
    }
    let body = whole(&bytes).map_err(|why| {
        let seconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let path = &target(path);
        let aside = with_suffix(path, &format!("damaged-{seconds}"));
        match std::fs::rename(path, &aside) {
            Ok(()) => Unread::Aside(format!("{}: {why}; kept as {}", path.display(), aside.display())),
            Err(e) => Unread::Stays(format!("{}: {why}; and it can't be kept aside: {e}", path.display())),
        }
    })?;
    // The whole file is parsed before the first item reaches the core.
    let items = items(body).map_err(|why| {
        let way_out = "its checksum is right, so a later version may have written it: start that one";
        Unread::Stays(format!("{}: {why}; {way_out}", path.display()))
    })?;
    let mut saved = Saved::default();
    for (kind, version, bytes) in items {
        saved.count(kind);
        core.restore_saved(kind, version, bytes)
            .map_err(|why| Unread::Stays(format!("{}: {why}", path.display())))?;
    }
    Ok(Some(saved))
}

/// Items of a file, borrowed from its bytes: kind, version, bytes.
type Items<'a> = Vec<(Kind, u32, &'a [u8])>;

/// Splits the checksum off a file, and checks it.
fn whole(bytes: &[u8]) -> Result<&[u8], &'static str> {
    let whole = bytes.len().checked_sub(SUM_BYTES).ok_or("it is too short")?;
    let (body, sum) = bytes.split_at(whole);
    if Sha256::digest(body)[..] != *sum {
        return Err("its checksum is wrong");
    }
    Ok(body)
}

/// Parses the bytes before the checksum. An error means another format, not damage.
fn items(body: &[u8]) -> Result<Items<'_>, &'static str> {
    let versions = body.starts_with(HEAD);
    let rest = body.strip_prefix(HEAD).or_else(|| body.strip_prefix(HEAD_1));
    let mut rest = rest.ok_or("it is not a file of tables that this version reads")?;
    let mut items = Vec::new();
    loop {
        let (&kind, after) = rest.split_first().ok_or("it ends early")?;
        if kind == END {
            return Ok(items);
        }
        // Exactly the kinds that `Core::each_saved` lends.
        let kinds = [Kind::Entry, Kind::Expiring, Kind::Ledger, Kind::Served];
        let kind = kinds.into_iter().find(|k| *k as u8 == kind);
        let kind = kind.ok_or("it holds an item of an unknown kind")?;
        let (version, after) = if versions { number(after)? } else { (0, after) };
        let (len, after) = number(after)?;
        let (item, after) = after.split_at_checked(len as usize).ok_or("it ends early")?;
        items.push((kind, version, item));
        rest = after;
    }
}

/// Splits a little-endian number off the bytes.
fn number(bytes: &[u8]) -> Result<(u32, &[u8]), &'static str> {
    let (number, rest) = bytes.split_first_chunk().ok_or("it ends early")?;
    Ok((u32::from_le_bytes(*number), rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::saved_place::put_in_place;

    fn core() -> Core {
        Core::new(Limits::default())
    }

    #[test]
    fn what_was_saved_is_read_and_damage_is_kept_aside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state/tables");
        assert_eq!(read(&mut core(), &path), Ok(None));
        let mut first = core();
        for n in 0..1000u32 {
            let entry = [&[1, 4, 0][..], b"t", &n.to_be_bytes(), b"value"].concat();
            first.restore_saved(Kind::Entry, 3, &entry).unwrap();
        }
        first.restore_saved(Kind::Ledger, 0, b"{}").unwrap();
        first.restore_saved(Kind::Served, 0, &77u64.to_le_bytes()).unwrap();
        let saved = write(&first, &path, "new", || {}).unwrap();
        assert_eq!(saved, Saved { entries: 1000, lines: 1 });
        assert!(!path.exists(), "it doesn't count before it is put in place");
        put_in_place(&path, "new").unwrap();
        let mut second = core();
        assert_eq!(read(&mut second, &path), Ok(Some(saved)));
        assert_eq!(second.entries_from("t", b"").0, first.entries_from("t", b"").0);
        assert_eq!((second.host_record_keys(Kind::Ledger).count(), second.connection_number()), (1, 77));
        let mut versions = 0;
        second.each_saved(|kind, version, _| {
            versions += u32::from(kind == Kind::Entry && version == 3);
            true
        });
        assert_eq!(versions, 1000);

        // File of the older format.
        let entry = [&[1, 1, 0][..], b"tk", b"value"].concat();
        let mut old =
            [HEAD_1, &[Kind::Entry as u8], &(entry.len() as u32).to_le_bytes(), &entry, &[END]].concat();
        old.extend(Sha256::digest(&old));
        let old_path = dir.path().join("old");
        std::fs::write(&old_path, &old).unwrap();
        let mut third = core();
        assert_eq!(read(&mut third, &old_path), Ok(Some(Saved { entries: 1, lines: 0 })));
        assert_eq!(third.entries_from("t", b"").0, [(b"k".to_vec(), b"value".to_vec())]);

        // Every byte of the file is under the checksum, so any changed one is found.
        let good = std::fs::read(&path).unwrap();
        let mut damaged = vec![good[..good.len() - 1].to_vec(), Vec::new(), b"GREENROOM TABLES 9\n".to_vec()];
        damaged.extend((0..good.len()).step_by(997).map(|at| {
            let mut bytes = good.clone();
            bytes[at] ^= 1;
            bytes
        }));
        for bytes in damaged {
            std::fs::write(&path, &bytes).unwrap();
            let mut third = core();
            let Unread::Aside(said) = read(&mut third, &path).unwrap_err() else { panic!("it stays") };
            assert!(said.contains("state/tables: it") && said.contains("kept as"), "{said}");
            assert!(!path.exists() && third.table_names().is_empty());
            let aside = said.rsplit_once("kept as ").unwrap().1;
            assert_eq!(std::fs::read(aside).unwrap(), bytes);
        }
    }

    #[test]
    fn a_file_that_may_be_good_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tables");
        let mut first = core();
        let entry = [&[1, 1, 0][..], b"tk", &[7; 1_000_000]].concat();
        first.restore_saved(Kind::Entry, 3, &entry).unwrap();
        write(&first, &path, "new", || {}).unwrap();
        put_in_place(&path, "new").unwrap();
        let good = std::fs::read(&path).unwrap();

        // A store that is too small. Its reserve is not for tables.
        let mut small = Core::new(Limits { store_bytes_max: 500_000, ..Limits::default() });
        let Unread::Stays(said) = read(&mut small, &path).unwrap_err() else { panic!("it is put aside") };
        assert!(said.contains("store_bytes_max"), "{said}");
        // A directory in its place can't be read, whoever asks.
        let beside = dir.path().join("directory");
        std::fs::create_dir(&beside).unwrap();
        assert!(
            matches!(read(&mut core(), &beside), Err(Unread::Stays(said)) if said.contains("can't be read"))
        );

        assert_eq!(std::fs::read(&path).unwrap(), good);
    }

    /// A file that may be good stays, and so does one that another program has put in the place.
    #[test]
    fn a_file_of_a_later_version_and_one_of_another_program_stay() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tables");
        let mut later = b"GREENROOM TABLES 3\n\0".to_vec();
        later.extend(Sha256::digest(&later));
        std::fs::write(&path, &later).unwrap();
        let Err(Unread::Stays(why)) = read(&mut core(), &path) else { panic!("it is used") };
        assert!(why.contains("a later version may have written it"), "{why}");
        assert_eq!(std::fs::read(&path).unwrap(), later);

        let other = "what somebody else keeps here";
        std::fs::write(&path, other).unwrap();
        write(&core(), &path, "new", || {}).unwrap();
        let why = put_in_place(&path, "new").unwrap_err().to_string();
        assert!(why.contains("another program's file"), "{why}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), other);
    }
}
