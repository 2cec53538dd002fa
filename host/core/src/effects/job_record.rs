//! Record of a job: what a successor knows of it.

/// Bytes of a job's record beside its name and input.
pub(super) const JOB_HEAD: usize = 16;
/// Flag of a record: the job runs at most once.
pub(super) const ONCE: u8 = 1;
/// Flag of a record: the job has begun, so its function may have run.
pub(super) const STARTED: u8 = 2;

/// A job's record. Numbers are little-endian.
///
/// | bytes | field |
/// | --- | --- |
/// | 0 to 7 | number |
/// | 8 to 11 | service, length of the name (2 bytes each) |
/// | 12, 13 | flags, deaths while it ran |
/// | 14 | deaths in a row while it ran, that nobody else explains |
/// | 15 | zero |
/// | 16 on | the name, the input |
pub(super) struct Record {
    pub(super) number: u64,
    pub(super) service: u16,
    pub(super) flags: u8,
    pub(super) deaths: u8,
    pub(super) row: u8,
    pub(super) name: String,
    pub(super) input: Vec<u8>,
}

impl Record {
    /// Encodes a record. Flags and deaths do not change its length.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(JOB_HEAD + self.name.len() + self.input.len());
        bytes.extend_from_slice(&self.number.to_le_bytes());
        bytes.extend_from_slice(&self.service.to_le_bytes());
        bytes.extend_from_slice(&(self.name.len() as u16).to_le_bytes());
        bytes.extend_from_slice(&[self.flags, self.deaths, self.row, 0]);
        bytes.extend_from_slice(self.name.as_bytes());
        bytes.extend_from_slice(&self.input);
        bytes
    }

    /// Decodes a record. `None`: it is too short for its head or its name, or the name is not
    /// UTF-8. Copies name and input.
    pub(super) fn decode(bytes: &[u8]) -> Option<Record> {
        let (head, rest) = bytes.split_at_checked(JOB_HEAD)?;
        let short = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
        let (name, input) = rest.split_at_checked(usize::from(short(10)))?;
        Some(Record {
            number: u64::from_le_bytes(head[..8].try_into().ok()?),
            service: short(8),
            flags: head[12],
            deaths: head[13],
            row: head[14],
            name: std::str::from_utf8(name).ok()?.to_owned(),
            input: input.to_vec(),
        })
    }
}
