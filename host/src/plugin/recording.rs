//! Files of recordings: lines of JSON, compressed.
//!
//! The first line is a [`RecordHead`], each other one a [`RecordedTurn`]. The compression is gzip,
//! so `zcat` shows the lines. A recording whose writer was killed ends in the middle: its whole
//! lines count.

use crate::memory::records::memory_file;
use crate::protocol::watch::{RECORDING, RecordHead, RecordedTurn};
use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use greenroom_state::parse::parse;
use serde::Serialize;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Bytes of a recording that are read, when it is unpacked.
const UNPACKED_MAX: u64 = 1 << 30;
/// Longest line, in bytes.
const LINE_MAX: u64 = 64 << 20;

/// Recording that is being written.
pub struct RecordingWriter {
    out: GzEncoder<Counted<BufWriter<File>>>,
}

/// Writer that counts bytes.
struct Counted<W> {
    to: W,
    bytes: u64,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

impl RecordingWriter {
    /// Makes a file, which only its owner may read: it holds what peers have sent. Fails if there
    /// is one.
    pub fn create(path: &Path) -> io::Result<RecordingWriter> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        let to = Counted { to: BufWriter::new(file), bytes: 0 };
        Ok(RecordingWriter { out: GzEncoder::new(to, Compression::default()) })
    }

    /// Appends a line.
    pub fn line(&mut self, line: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, line)?;
        self.out.write_all(b"\n")
    }

    /// Brings all lines so far to the file.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// Bytes of the file so far, about.
    pub fn bytes(&self) -> u64 {
        self.out.get_ref().bytes
    }

    /// Ends the file. Returns its bytes.
    pub fn finish(self) -> io::Result<u64> {
        let mut to = self.out.finish()?;
        to.flush()?;
        to.to.get_ref().sync_all()?;
        Ok(to.bytes)
    }
}

/// Recording, unpacked into a memory file.
pub struct Unpacked {
    /// Lines behind the first.
    pub lines: File,
    /// First line.
    pub head: RecordHead,
    /// Number of lines behind it.
    pub turns: u64,
    /// Whether the file ends in the middle of a line, or of its compression.
    pub is_cut: bool,
}

/// Unpacks a recording. Fails if the file is none, or of a later form.
pub fn unpack(path: &Path) -> Result<Unpacked, String> {
    let name = path.display();
    let none = |why: &dyn std::fmt::Display| format!("{name}: it is no recording of greenroom: {why}");
    let file = File::open(path).map_err(|e| format!("{name}: {e}"))?;
    let mut from = BufReader::new(MultiGzDecoder::new(BufReader::new(file)).take(UNPACKED_MAX));
    let mut line = Vec::new();
    next_line(&mut from, &mut line).map_err(|e| none(&e))?;
    let head: serde_json::Value = parse(&line).map_err(|e| none(&e))?;
    match head["greenroom_recording"].as_u64() {
        Some(form) if form == u64::from(RECORDING) => {}
        Some(form) => {
            return Err(format!("{name}: it is of form {form}, and this host reads form {RECORDING}"));
        }
        None => return Err(none(&"its first line says no form")),
    }
    let head: RecordHead = serde_json::from_value(head).map_err(|e| none(&e))?;
    let mut lines = File::from(memory_file("greenroom-recording").map_err(|e| e.to_string())?);
    let mut to = BufWriter::new(&mut lines);
    let (mut turns, mut is_cut) = (0, false);
    loop {
        match next_line(&mut from, &mut line) {
            Ok(true) => {
                to.write_all(&line).map_err(|e| format!("{name}: {e}"))?;
                turns += 1;
            }
            Ok(false) => break,
            Err(_) => {
                is_cut = true;
                break;
            }
        }
    }
    if from.get_ref().limit() == 0 {
        return Err(format!("{name}: unpacked it has more than {UNPACKED_MAX} bytes"));
    }
    to.flush().map_err(|e| format!("{name}: {e}"))?;
    drop(to);
    lines.rewind().map_err(|e| format!("{name}: {e}"))?;
    Ok(Unpacked { lines, head, turns, is_cut })
}

/// Reads a whole line. False: there is none. Fails if it is not whole, or too long.
fn next_line(from: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    let len = from.take(LINE_MAX).read_until(b'\n', line)?;
    match line.last() {
        Some(b'\n') => Ok(true),
        _ if len == 0 => Ok(false),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Calls `each` with the turns of an unpacked recording, and the number of their lines in it. A
/// line that can't be read is an error: it was whole.
pub fn each_turn(
    lines: impl Read,
    mut each: impl FnMut(u64, RecordedTurn) -> Result<(), String>,
) -> Result<(), String> {
    let mut from = BufReader::new(lines);
    let (mut line, mut number) = (Vec::new(), 1);
    while next_line(&mut from, &mut line).map_err(|e| format!("the recording: {e}"))? {
        number += 1;
        let turn = parse(&line).map_err(|e| format!("the recording, line {number}: {e}"))?;
        each(number, turn)?;
    }
    Ok(())
}
