//! Errors of the build that teach: each says what to write. Real cargo builds what an author would
//! get wrong.

use greenroom_tests::fixture::Fixture;

/// Builds a handler that is wrong, and looks for the words that say what is right.
#[track_caller]
fn check(fixture: &Fixture, source: &str, says: &[&str]) {
    fixture.write(&format!("{HEAD}{source}"));
    let words = fixture.refusal();
    for part in says {
        assert!(words.contains(part), "{part:?} is not in:\n{words}");
    }
}

const HEAD: &str = "
#![allow(unused)]
use greenroom_handler::{Handler, Map, Result, Table, Tables, Turn, export, handler};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
";

/// Service `room`, with these items.
fn room(items: &str) -> String {
    format!(
        "export!(Room); struct Room;
         #[handler] impl Handler for Room {{ const SERVICE: &'static str = \"room\"; {items} }}"
    )
}

#[test]
fn errors_say_what_to_write() {
    let fixture = Fixture::new("teaching", "");
    let state = |derives: &str| {
        room("type State = Count;") + &format!("#[derive({derives})] struct Count {{ lines: u64 }}")
    };
    check(
        &fixture,
        &state("Serialize, Deserialize, JsonSchema"),
        &["`Count: Default` is not satisfied", "#[derive(Default)]"],
    );
    check(
        &fixture,
        &state("Default, Serialize, Deserialize"),
        &["`Count` has no schema", "needs `#[derive(schemars::JsonSchema)]`"],
    );
    // A state that only the methods name.
    let other = "fn message(&self, turn: &mut Turn<u64>, _: &[u8]) -> Result { Ok(()) }";
    check(&fixture, &room(other), &["expected `()`, found `u64`"]);
    check(
        &fixture,
        &(room("type Config = Mine; fn new(_: Mine) -> Result<Self, String> { Ok(Room) }") + "struct Mine;"),
        &["`Mine` can't be read from the settings of a service", "needs `#[derive(serde::Deserialize)]`"],
    );
    check(
        &fixture,
        &(room("type Config = Mine;") + "#[derive(Deserialize)] struct Mine { color: String }"),
        &["`Room` can't be made of its settings", "needs `fn new(settings: Mine) -> Result<Self, String>`"],
    );
    let two = "#[handler] impl Handler for Two { const SERVICE: &'static str = \"room\"; } struct Two;";
    check(
        &fixture,
        &(room("").replace("export!(Room)", "export!(Room, Two)") + two),
        &["two services of `export!` have one name", "change `const SERVICE` of one"],
    );
    check(
        &fixture,
        "const PRICES: Map<f64, u8> = Map::new(\"prices\");",
        &["`f64` is no key of a table", "keys are numbers, bool, char, String"],
    );
    let owned = "fn tables() -> Tables { Tables::none().own(&T) }";
    check(
        &fixture,
        &(room(owned)
            + "const T: Table<V> = Table::new(\"t\"); #[derive(Serialize, Deserialize)] struct V { a: u8 }"),
        &["`V` has no schema"],
    );
    let both = "fn handle(&self, turn: &mut Turn, _: greenroom_handler::Action) -> Result { Ok(()) }
                fn message(&self, turn: &mut Turn, _: &[u8]) -> Result { Ok(()) }";
    check(&fixture, &room(both), &["`fn message` is never called, as `fn handle` takes all actions"]);
    check(&fixture, "#[handler] struct Room;", &["`#[handler]` stands in front of an `impl Handler for …`"]);
    check(
        &fixture,
        "impl Handler for Room { const SERVICE: &'static str = \"room\"; } struct Room;",
        &["missing: `State`, `Config`, `new`"],
    );
}
