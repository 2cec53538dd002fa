//! Tables of commands: columns that fit the terminal, and the rest of each row below it.
//!
//! | where | form |
//! | --- | --- |
//! | a pipe, or a terminal that is wide enough | a line for each row |
//! | a narrower terminal | the first columns that fit; the others below, by name |
//! | `--wide` | a line for each row, every column |
//!
//! Columns that are empty in all rows are left out, but for `--wide`. Programs read `--json`.

use crate::printable;
use std::fmt::{self, Write};
use std::io::IsTerminal;
use unicode_width::UnicodeWidthStr;

/// Spaces before what is folded below a row.
const INDENT: usize = 6;
/// Narrowest width that anything is folded to.
const WIDTH_MIN: usize = 20;

/// Form of a table.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Form {
    /// Every column is shown, and nothing is folded.
    pub(super) wide: bool,
    /// Columns of the terminal; `None`: lines may have any length.
    pub(super) columns: Option<usize>,
}

impl Form {
    /// Form for standard output as it is now.
    pub(super) fn of_output(wide: bool) -> Form {
        Form { wide, columns: terminal().map(|(columns, _)| columns) }
    }
}

/// Columns and rows of the terminal that standard output is; `None`: it is none.
pub(super) fn terminal() -> Option<(usize, usize)> {
    let out = std::io::stdout();
    if !out.is_terminal() {
        return None;
    }
    let size = rustix::termios::tcgetwinsize(&out).ok()?;
    // A terminal without a size has 0 columns: nothing is known.
    (size.ws_col > 0).then_some((size.ws_col.into(), size.ws_row.into()))
}

/// Table, whose cells are lines.
pub(super) struct Table {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

/// Makes a table with this head.
pub(super) fn table(head: &[&str]) -> Table {
    Table { head: head.iter().map(|&name| name.to_owned()).collect(), rows: Vec::new() }
}

impl Table {
    /// Adds a row. Line ends and other control characters are escaped, before widths are counted.
    pub(super) fn add_row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|cell| printable::one_line(&cell).into_owned()).collect());
    }

    /// Lays the table out, without an end of its last line.
    pub(super) fn in_form(&self, form: Form) -> String {
        let is_used = |column: usize| self.rows.iter().any(|row| !row[column].is_empty());
        let shown: Vec<usize> =
            (0..self.head.len()).filter(|c| form.wide || self.rows.is_empty() || is_used(*c)).collect();
        let whole = self.columns(&shown);
        match form.columns.filter(|_| !form.wide).map(|columns| columns.max(WIDTH_MIN)) {
            Some(columns) if width(&whole) > columns => self.folded(&shown, columns),
            _ => whole,
        }
    }

    /// Lays out some columns, a line for each row.
    fn columns(&self, shown: &[usize]) -> String {
        let cells = |row: &[String]| shown.iter().map(|c| row[*c].clone()).collect::<Vec<_>>();
        let mut table = comfy_table::Table::new();
        table.load_style(comfy_table::presets::NOTHING).set_header(cells(&self.head));
        self.rows.iter().for_each(|row| _ = table.add_row(cells(row)));
        table.to_string()
    }

    /// Lays out the first columns that fit, at least one, and the others below each row.
    fn folded(&self, shown: &[usize], columns: usize) -> String {
        let cells = |c: usize| self.rows.iter().map(move |row| &row[c]).chain([&self.head[c]]);
        let mut used = 0;
        // The layout has a space on both sides of a cell.
        let fits = shown.iter().take_while(|c| {
            used += cells(**c).map(|cell| cell.width()).max().unwrap_or(0) + 2;
            used <= columns
        });
        let (kept, below) = shown.split_at(fits.count().max(1));
        let mut text = String::new();
        // The head, and then a line for each row.
        for (line, row) in
            self.columns(kept).lines().zip(std::iter::once(None).chain(self.rows.iter().map(Some)))
        {
            let _ = writeln!(text, "{}", line.trim_end());
            let filled = row.into_iter().flat_map(|row| below.iter().map(move |c| (*c, &row[*c])));
            let parts = filled.filter(|(_, cell)| !cell.is_empty());
            wrap(parts.map(|(c, cell)| format!("{} {cell}", self.head[c])), columns, &mut text);
        }
        text.pop();
        text
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.in_form(Form::of_output(false)))
    }
}

/// Width of the widest line, but for spaces at its end.
fn width(text: &str) -> usize {
    text.lines().map(|line| line.trim_end().width()).max().unwrap_or(0)
}

/// Adds indented lines with the parts, two spaces between them. A part that does not fit a line is
/// broken at its spaces, and within a word only if the word is longer than a line.
fn wrap(parts: impl Iterator<Item = String>, columns: usize, text: &mut String) {
    let room = columns.saturating_sub(INDENT).max(1);
    let mut line = String::new();
    let mut end = |line: &mut String| {
        if !line.is_empty() {
            let _ = writeln!(text, "{:INDENT$}{}", "", line.trim_end());
            line.clear();
        }
    };
    for part in parts {
        let between = if line.is_empty() { 0 } else { 2 };
        if line.width() + between + part.width() > room {
            end(&mut line);
        } else if between > 0 {
            line.push_str("  ");
        }
        for (at, word) in part.split(' ').enumerate() {
            if at > 0 {
                line.push(' ');
            }
            if line.width() + word.width() > room {
                end(&mut line);
            }
            for c in word.chars() {
                if line.width() + unicode_width::UnicodeWidthChar::width(c).unwrap_or(0) > room {
                    end(&mut line);
                }
                line.push(c);
            }
        }
    }
    end(&mut line);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Table {
        let mut table = table(&["ID", "NAME", "EMPTY", "WHY"]);
        table.add_row(["1".into(), "ann".into(), String::new(), "because it is long and has words".into()]);
        table.add_row(["22".into(), "é\u{202e}".into(), String::new(), String::new()]);
        table
    }

    #[test]
    fn a_table_has_the_columns_that_hold_something() {
        let text = sample().in_form(Form::default());
        assert_eq!(text.lines().count(), 3);
        assert!(!text.contains("EMPTY") && text.contains("\\u{202e}"), "{text}");
        assert!(sample().in_form(Form { wide: true, columns: Some(20) }).contains("EMPTY"));
        assert!(table(&["A", "B"]).in_form(Form::default()).contains('B'));
    }

    #[test]
    fn a_narrow_terminal_gets_the_rest_of_a_row_below_it() {
        let text = sample().in_form(Form { wide: false, columns: Some(26) });
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines,
            [
                " ID  NAME",
                " 1   ann",
                "      WHY because it is",
                "      long and has words",
                " 22  é\\u{202e}"
            ]
        );
        assert!(width(&text) <= 26);
        let mut long = table(&["A", "B"]);
        long.add_row(["x".repeat(50), "y".repeat(50)]);
        let text = long.in_form(Form { wide: false, columns: Some(30) });
        assert_eq!(text.matches('y').count(), 50);
        assert!(text.lines().skip(2).all(|line| line.width() <= 30), "{text}");
    }

    #[test]
    fn a_cell_is_one_line_whatever_it_holds() {
        let mut table = table(&["PEER", "WHY"]);
        table.add_row(["a\u{1b}[2J".into(), "one\r\n7  another row".into()]);
        let text = table.in_form(Form::default());
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(text.contains(r"a\u{1b}[2J") && text.contains(r"one\r\n7  another row"), "{text}");
    }
}
