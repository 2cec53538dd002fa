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
        // Indented by the text of its first column: the table has no margin of its own. A column of
        // data in removed fields is there if there is any.
        let is_held = s.fields.iter().any(|f| f.held_by.is_some_and(|n| n > 0));
        let columns = ["    FIELD", "CHANGE", "HELD BY"];
        let mut fields = table(&columns[..if is_held { 3 } else { 2 }]);
        for f in &s.fields {
            let field = if f.field.is_empty() { "(all of it)" } else { &f.field };
            // The text begins with the field's name, which has a column of its own.
            let words = f.text.split_once(": ").map_or(f.text.as_str(), |(_, words)| words);
            // Counted for removed fields only.
            let held = f.held_by.filter(|n| *n > 0).map(|n| match (&s.table, n) {
                (None, 1) => "1 session".to_owned(),
                (None, n) => format!("{n} sessions"),
                (Some(_), 1) => "1 entry".to_owned(),
                (Some(_), n) => format!("{n} entries"),
            });
            let mut row = vec![format!("    {field}"), words.to_owned()];
            row.extend(is_held.then(|| held.unwrap_or_default()));
            fields.add_row(row);
        }
        let _ = writeln!(text, "{fields}");
    }
    text += &dialogues(r);
    print_text(&text);
}

/// Prints what becomes of sessions in the middle of a dialogue.
pub(super) fn print_dialogues(r: &Rehearsal) {
    print_text(&dialogues(r));
}

/// Lines on dialogues, a block for each service; none if no session is in one.
fn dialogues(r: &Rehearsal) -> String {
    let mut text = String::new();
    for d in &r.dialogues {
        for (n, told) in d.told().iter().enumerate() {
            let begin = if n == 0 { format!("  service {}: ", d.service) } else { "    ".to_owned() };
            let _ = writeln!(text, "{begin}{}", one_line(told));
        }
    }
    text
}
