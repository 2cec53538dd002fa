//! Code of the book, `handlers/book`: each block is compiled and run as a doc test. One page is not
//! here, `five-minutes.md`: it shows parts of what `greenroom new` makes.
//!
//! Only doc tests see it. `greenroom new` lays the book down beside the SDK.

/// Has the code of a page tested.
macro_rules! page {
    ($name:ident, $file:literal) => {
        #[doc = include_str!(concat!("../../book/", $file))]
        mod $name {}
    };
}

page!(turns, "turns.md");
page!(state, "state.md");
page!(settings, "settings.md");
page!(tables, "tables.md");
page!(questions, "questions.md");
page!(jobs_and_timers, "jobs-and-timers.md");
page!(testing, "testing.md");
page!(telnet_and_web, "telnet-and-web.md");
page!(errors, "errors.md");
page!(game, "game.md");
