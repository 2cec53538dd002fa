//! The page `host/PROTOCOL.md` and the types that it describes: each names all that the other has.

use crate::variants;
use greenroom::protocol::admin::{AdminCommand, Piece, Reply};
use greenroom::protocol::serving::ServedBy;
use greenroom_state::parse::parse;
use greenroom_tests::root;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Rows of the table in a section of the page. First and last cell are without the marks of code.
#[track_caller]
pub(crate) fn rows(section: &str) -> Vec<Vec<String>> {
    let page = std::fs::read_to_string(root().join("host/PROTOCOL.md")).expect("the page");
    let text = page.split(&format!("\n## {section}\n")).nth(1).unwrap_or_else(|| panic!("no {section}"));
    let text = text.split("\n## ").next().unwrap_or_default();
    let lines = text.lines().filter(|line| line.starts_with("| `"));
    let cells = |line: &str| -> Vec<String> {
        let cells = line.trim_matches('|').split(" | ");
        let mut cells: Vec<_> = cells.map(|cell| cell.trim().to_owned()).collect();
        let last = cells.len() - 1;
        cells[0] = cells[0].trim_matches('`').to_owned();
        cells[last] = cells[last].trim_matches('`').to_owned();
        cells
    };
    lines.map(cells).collect()
}

/// Names of the replies in the row of a command.
pub(crate) fn replies_of(row: &[String]) -> Vec<String> {
    row[4].split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Examples of a section, as JSON.
pub(crate) fn examples(section: &str) -> Vec<String> {
    rows(section).into_iter().filter_map(|mut row| row.pop()).collect()
}

/// Name of the variant that a value of an enum is.
fn name_of(value: &Value) -> &str {
    let of_object = || value.as_object().and_then(|o| o.keys().next()).map(String::as_str);
    value.as_str().or_else(of_object).expect("a name, or an object with one key")
}

/// Whether all keys of a value are those of another one, at every level.
fn is_part(of: &Value, whole: &Value) -> bool {
    match (of, whole) {
        (Value::Object(a), Value::Object(b)) => {
            a.iter().all(|(key, value)| b.get(key).is_some_and(|other| is_part(value, other)))
        }
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_part(a, b))
        }
        _ => of == whole,
    }
}

/// Checks that a section has a row for each variant, and that the row's example is one.
#[track_caller]
fn check<T: Serialize + DeserializeOwned>(section: &str) -> Vec<(Vec<String>, T)> {
    let rows = rows(section);
    let named: Vec<_> = rows.iter().map(|row| row[0].clone()).collect();
    assert_eq!(named, variants::<T>(), "{section} of host/PROTOCOL.md, and the type");
    let read = |row: Vec<String>| {
        let text = row.last().expect("an example");
        let value: Value = serde_json::from_str(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(name_of(&value), row[0], "{text}");
        let read: T = parse(text.as_bytes()).unwrap_or_else(|e| panic!("{text}: {e}"));
        let whole = serde_json::to_value(&read).expect("JSON");
        assert!(is_part(&value, &whole), "{section}: the type has not all of {text}, only {whole}");
        (row, read)
    };
    rows.into_iter().map(read).collect()
}

#[test]
fn each_command_is_described_with_who_answers_its_role_and_whether_it_is_repeatable() {
    let replies = variants::<Reply>();
    for (row, command) in check::<AdminCommand>("Commands") {
        let by = match command.served_by() {
            ServedBy::Keeper => "keeper",
            ServedBy::Worker => "worker",
            ServedBy::KeeperThenWorker => "both",
        };
        let again = if command.is_repeatable() { "yes" } else { "no" };
        let said = [&row[1], &row[2], &row[3]].map(String::as_str);
        assert_eq!(said, [by, command.role().name(), again], "{row:?}");
        for reply in replies_of(&row) {
            assert!(replies.contains(&reply), "{reply} in the row of {}", row[0]);
        }
    }
}

#[test]
fn each_reply_and_piece_is_described_with_an_example() {
    check::<Reply>("Replies");
    check::<Piece>("Pieces");
}
