//! Inspection of a library without running any of its code.
//!
//! The loader runs initialisers, can crash on a damaged file, and names causes that mislead. So
//! this step comes first. A library passes if it is a whole ELF file for this machine and
//! carries the note. The note must name an ABI and a panic strategy that this host can work
//! with. Each refusal says what the author can change.
//!
//! Only headers and the note are read, so the cost does not depend on the size of the code. The
//! bytes are not trusted: a field that points outside the file is an error, and never read. A
//! file that passes may still fail to load; the trial finds that out in a child process.

use crate::plugin::linkage;
use greenroom_state::abi;
use greenroom_state::elf_note::{Note, OWNER, SECTION, TYPE};
use object::LittleEndian;
use object::elf;
use object::read::elf::{ElfFile64, FileHeader as _, ProgramHeader as _, SectionHeader as _};
use std::path::Path;

#[cfg(target_arch = "x86_64")]
const MACHINE: u16 = elf::EM_X86_64.0;
#[cfg(target_arch = "aarch64")]
const MACHINE: u16 = elf::EM_AARCH64.0;

/// Findings about a library that may be tried.
#[derive(Debug)]
pub struct Inspected {
    /// Note of the library.
    pub note: Note,
    /// Bytes of initial-exec thread-local storage that it takes in each process.
    pub static_tls: u64,
}

/// Reads a library's note, and checks its linkage as that of a file at `path`. An error says why
/// the library can't be loaded. The order goes from the coarse to the fine, so the first reason is
/// the one to name.
pub fn inspect(bytes: &[u8], path: &Path) -> Result<Inspected, String> {
    let note = read_note(bytes)?;
    let static_tls = linkage::check(bytes, path)?;
    Ok(Inspected { note, static_tls })
}

/// Reads a library's note, as far as the host can work with the library.
fn read_note(bytes: &[u8]) -> Result<Note, String> {
    if bytes.is_empty() {
        return Err("the file is empty".into());
    }
    if !bytes.starts_with(b"\x7fELF") {
        return Err("it is not an ELF file, so no shared library".into());
    }
    // The header of a 64-bit ELF file has 64 bytes; the fields below lie inside it.
    if bytes.len() < 64 {
        return Err(format!("it is truncated: {} bytes don't hold an ELF header", bytes.len()));
    }
    // Class and byte order. The numbers below are read in this order.
    if (bytes[4], bytes[5]) != (2, 1) {
        return Err("it is not a 64-bit little-endian ELF file".into());
    }
    // Before the type: a file for another machine says nothing else of use.
    let machine = u16::from_le_bytes([bytes[18], bytes[19]]);
    if machine != MACHINE {
        return Err(format!(
            "it is built for another processor: {}, and this host runs on {}",
            machine_name(machine),
            machine_name(MACHINE)
        ));
    }
    // Executables and object files are ELF files, too.
    let kind = u16::from_le_bytes([bytes[16], bytes[17]]);
    if kind != elf::ET_DYN.0 {
        return Err(
            "it is an ELF file, but not a shared library; give its crate crate-type = [\"cdylib\"]".into()
        );
    }
    check_whole(bytes)?;
    // The headers are known to lie inside the file here, so a missing note is no damage.
    let note = find_note(bytes)?.ok_or_else(|| {
        format!("it is a shared library without a Greenroom note ({SECTION}): it does not call export!")
    })?;
    let note = Note::parse(note).map_err(|e| e.to_string())?;
    let (major, minor) = note.abi;
    // Libraries of an older minor version lack fields that this host can do without.
    if major != abi::MAJOR || minor > abi::MINOR {
        return Err(format!(
            "it is built for ABI {major}.{minor}, this host has {}.{}; build it with the greenroom-handler of this host",
            abi::MAJOR,
            abi::MINOR
        ));
    }
    // Under `abort` a panic in a turn would end the worker, and no turn could fail alone.
    if note.panic != "unwind" {
        return Err(format!(
            "it is built with panic = \"{}\": one panic would end the host; build it with panic = \"unwind\"",
            note.panic
        ));
    }
    Ok(note)
}

/// Name of a processor, for a refusal.
fn machine_name(machine: u16) -> String {
    match elf::Machine(machine) {
        elf::EM_X86_64 => "x86_64".into(),
        elf::EM_AARCH64 => "aarch64".into(),
        elf::EM_RISCV => "riscv".into(),
        elf::EM_386 => "x86".into(),
        elf::EM_ARM => "arm".into(),
        other => format!("ELF machine {}", other.0),
    }
}

/// ELF file as the note is found in it.
type File<'a> = ElfFile64<'a, LittleEndian>;
/// Header of such a file.
type Header = elf::FileHeader64<LittleEndian>;

/// Checks that all segments and sections that the headers name lie inside the file. O(segments
/// + sections).
fn check_whole(bytes: &[u8]) -> Result<(), String> {
    let damaged = |what: &str| format!("it is truncated or damaged: {what}");
    let header = Header::parse(bytes).map_err(|e| damaged(&e.to_string()))?;
    let len = bytes.len() as u64;
    // Sums of untrusted numbers may overflow; then they lie outside, too.
    let inside = |at: u64, size: u64| at.checked_add(size).is_some_and(|end| end <= len);
    let segments = header.program_headers(LittleEndian, bytes).map_err(|e| damaged(&e.to_string()))?;
    for s in segments {
        if !inside(s.p_offset(LittleEndian), s.p_filesz(LittleEndian)) {
            return Err(damaged("a segment lies beyond its end"));
        }
    }
    let sections = header.section_headers(LittleEndian, bytes).map_err(|e| damaged(&e.to_string()))?;
    for s in sections {
        // Sections such as `.bss` have a size and no bytes in the file.
        let has_bytes = s.sh_type(LittleEndian) != elf::SHT_NOBITS;
        if has_bytes && !inside(s.sh_offset(LittleEndian), s.sh_size(LittleEndian)) {
            return Err(damaged("a section lies beyond its end"));
        }
    }
    // Without program headers the note cannot be found, and nothing can be loaded.
    if segments.is_empty() {
        return Err(damaged("it has no segments"));
    }
    Ok(())
}

/// Finds the descriptor of the Greenroom note; `None`: there is none. Program headers lead to
/// it, which stripping keeps.
fn find_note(bytes: &[u8]) -> Result<Option<&[u8]>, String> {
    // The zero byte at the end of the owner's name is no part of the name here.
    note_of(bytes, &OWNER[..OWNER.len() - 1], TYPE)
}

/// Build id that the linker gave a library, in hexadecimal. `None`: none, or the file is
/// damaged. For reports alone.
pub fn build_id(bytes: &[u8]) -> Option<String> {
    let id = note_of(bytes, elf::ELF_NOTE_GNU, elf::NT_GNU_BUILD_ID.0).ok()??;
    Some(id.iter().map(|b| format!("{b:02x}")).collect())
}

/// Finds a note by owner and type; `None`: there is none. An error says that the file is
/// damaged.
fn note_of<'a>(bytes: &'a [u8], owner: &[u8], kind: u32) -> Result<Option<&'a [u8]>, String> {
    let damaged = |e: object::read::Error| format!("it is damaged: {e}");
    let file = File::parse(bytes).map_err(damaged)?;
    for segment in file.elf_program_headers() {
        let Some(mut notes) = segment.notes(file.endian(), bytes).map_err(damaged)? else { continue };
        while let Some(note) = notes.next().map_err(damaged)? {
            if note.name() == owner && note.n_type(file.endian()).0 == kind {
                return Ok(Some(note.desc()));
            }
        }
    }
    Ok(None)
}

/// Whether a file carries the note, whatever else is wrong with it. Decides whether a file that
/// appears in a watched directory is meant for this host at all.
pub fn has_note(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\x7fELF") && check_whole(bytes).is_ok() && matches!(find_note(bytes), Ok(Some(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The test binary itself: a position-independent ELF file for this machine, so of a library's
    /// type.
    fn own() -> Vec<u8> {
        std::fs::read(std::env::current_exe().unwrap()).unwrap()
    }

    #[test]
    fn says_what_is_wrong() {
        let good = own();
        for (bytes, says) in [
            (Vec::new(), "empty"),
            (b"#!/bin/sh\n".to_vec(), "not an ELF file"),
            (good[..40].to_vec(), "truncated"),
            (good[..good.len() / 2].to_vec(), "truncated or damaged"),
            (good.clone(), "without a Greenroom note"),
        ] {
            let err = read_note(&bytes).unwrap_err();
            assert!(err.contains(says), "{err}");
        }
        let mut other = good.clone();
        other[18..20].copy_from_slice(&elf::EM_RISCV.0.to_le_bytes());
        assert!(read_note(&other).unwrap_err().contains("another processor: riscv"));
        other[4] = 1;
        assert!(read_note(&other).unwrap_err().contains("64-bit"));
    }
}
