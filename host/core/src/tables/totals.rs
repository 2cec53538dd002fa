//! Totals of the entries of a table, or of a part of it.

/// Totals of items.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Totals {
    /// Number of items.
    pub(super) count: usize,
    /// Their bytes.
    pub(super) bytes: usize,
    /// Items of each version, in no order. Versions without an item are not in the list; mostly
    /// there is one.
    pub(super) versions: Vec<(u32, usize)>,
}

impl Totals {
    /// Counts an item.
    pub(super) fn add(&mut self, bytes: usize, version: u32) {
        self.count += 1;
        self.bytes += bytes;
        self.add_version(version, 1);
    }

    fn add_version(&mut self, version: u32, n: usize) {
        match self.versions.iter_mut().find(|(v, _)| *v == version) {
            Some((_, count)) => *count += n,
            None => self.versions.push((version, n)),
        }
    }

    /// Takes an item away.
    pub(super) fn subtract(&mut self, bytes: usize, version: u32) {
        self.count -= 1;
        self.bytes -= bytes;
        self.subtract_version(version, 1);
    }

    fn subtract_version(&mut self, version: u32, n: usize) {
        let Some(at) = self.versions.iter().position(|(v, _)| *v == version) else { return };
        self.versions[at].1 -= n;
        if self.versions[at].1 == 0 {
            self.versions.swap_remove(at);
        }
    }

    pub(super) fn add_all(&mut self, other: &Totals) {
        self.count += other.count;
        self.bytes += other.bytes;
        for (version, n) in &other.versions {
            self.add_version(*version, *n);
        }
    }

    pub(super) fn subtract_all(&mut self, other: &Totals) {
        self.count -= other.count;
        self.bytes -= other.bytes;
        for (version, n) in &other.versions {
            self.subtract_version(*version, *n);
        }
    }
}
