//! Rehearsals, printed for people.
//!
//! `reload --dry-run` prints them, and a reload that was refused: an operator sees which fields
//! would change, and how much live data has them. Programs read the same from `--json`.

use crate::cli::output::print_text;
use crate::cli::table::table;
use crate::printable::one_line;
use greenroom_state::rehearsal_report::Rehearsal;
use std::fmt::Write;

/// Prints the changes that a build would make, a block for each service and table. Blocks
/// without a changed field are one line.
pub(super) fn print_rehearsal(r: &Rehearsal) {
    let mut text = format!("  rehearsed with {} sessions, {} to be migrated", r.sessions, r.migrated);
    if r.entries > 0 {
        let _ = write!(text, "; {} table entries, {} to be migrated", r.entries_read(), r.entries_migrated);
    }
    let _ = writeln!(text, "; {} ms", r.ms);
    if let Some(unread) = &r.unread_before {
        let _ = writeln!(text, "  {}", one_line(unread));
    }
    for s in &r.shapes {
        let what = match &s.table {
            None => format!("service {}: state", s.service),
            Some(name) => format!("service {}: table {name}", s.service),
        };
        let versions =
            if s.from == s.to { format!("v{}", s.to) } else { format!("v{} -> v{}", s.from, s.to) };
        let _ = writeln!(text, "  {what} {versions}, compatibility {}, way back {}", s.verdict, s.way_back);
        if s.fields.is_empty() {
            continue;
        }
        // Indented by the text of its first column: the table has no margin of its own.
        let mut fields = table(&["    FIELD", "CHANGE", "HELD BY"]);
        for f in &s.fields {
            let field = if f.field.is_empty() { "(all of it)" } else { &f.field };
            // The text begins with the field's name, which has a column of its own.
            let words = f.text.split_once(": ").map_or(f.text.as_str(), |(_, words)| words);
            // Counted for removed fields only.
            let held = f.held_by.map_or_else(String::new, |n| match &s.table {
                None => format!("{n} sessions"),
                Some(_) => format!("{n} entries"),
            });
            fields.add_row([format!("    {field}"), words.to_owned(), held]);
        }
        let _ = writeln!(text, "{fields}");
    }
    print_text(&text);
}
