//! Builder of a fixture for `scripts/bench`: builds the handler `tests/fixtures/NAME.rs` in
//! release, and puts the library in a place.

use greenroom_tests::fixture::{Fixture, Optimize, install};
use greenroom_tests::root;
use std::path::Path;

fn main() {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let [name, to] = &args[..] else {
        eprintln!("fixture NAME OUT.so");
        std::process::exit(2);
    };
    let source =
        std::fs::read_to_string(root().join(format!("tests/fixtures/{name}.rs"))).expect("the fixture");
    let fixture = Fixture::with(Optimize::AsReleased, &format!("{name}_fixture"), &source);
    install(&fixture.build(), Path::new(to));
    println!("{to}");
}
